//! /proc/cpuinfo of x86, ARM, RISC-V and POWER.
const std = @import("std");
const text = @import("text.zig");
const inventory = @import("inventory.zig");

const Allocator = std.mem.Allocator;
const MHZ = 1_000_000;

/// One (socket, core) that was seen, and whether the socket was.
const Place = struct { socket: u64, core: ?u64 };

const Reader = struct {
    arena: Allocator,
    cpu: inventory.Cpu = .{},
    threads: u64 = 0,
    socket: ?u64 = null,
    core: ?u64 = null,
    open: bool = false,
    cores_per_socket: ?u64 = null,
    cores: std.AutoHashMapUnmanaged(Place, void) = .empty,
    sockets: std.AutoHashMapUnmanaged(u64, void) = .empty,
    implementer: ?u64 = null,
    parts: std.ArrayList([]const u8) = .empty,
    machine: ?[]const u8 = null,
    flags: ?[]const u8 = null,
    bugs: ?[]const u8 = null,
    isa: ?[]const u8 = null,
    arm: bool = false,
    arm_architecture: ?u64 = null,
    cache_bytes: ?u64 = null,

    fn finishProcessor(self: *Reader) !void {
        if (self.open) {
            if (self.socket) |socket| {
                try self.sockets.put(self.arena, socket, {});
                if (self.core) |core| try self.cores.put(self.arena, .{ .socket = socket, .core = core }, {});
            }
        }
        self.open = false;
        self.socket = null;
        self.core = null;
    }

    fn frequency(self: *Reader, value: []const u8) void {
        const hertz = text.hertz(value, MHZ) orelse return;
        const known = &self.cpu.frequency_hz;
        known.current_lowest = @min(known.current_lowest orelse hertz, hertz);
        known.current_highest = @max(known.current_highest orelse hertz, hertz);
    }

    fn part(self: *Reader, value: []const u8) !void {
        for (self.parts.items) |known| {
            if (std.mem.eql(u8, known, value)) return;
        }
        try self.parts.append(self.arena, value);
    }

    fn field(self: *Reader, key: []const u8, value: []const u8) !void {
        const cpu = &self.cpu;
        if (std.mem.eql(u8, key, "processor")) {
            if (text.number(value) != null) {
                try self.finishProcessor();
                self.open = true;
                self.threads += 1;
            } else if (cpu.model == null) cpu.model = text.said(value);
        } else if (std.mem.eql(u8, key, "Processor")) {
            if (cpu.model == null) cpu.model = text.said(value);
        } else if (text.same(key, "physical id")) {
            self.socket = text.number(value);
        } else if (text.same(key, "core id")) {
            self.core = text.number(value);
        } else if (text.same(key, "cpu cores")) {
            self.cores_per_socket = self.cores_per_socket orelse text.number(value);
        } else if (text.same(key, "vendor_id")) {
            cpu.vendor = cpu.vendor orelse text.said(value);
        } else if (text.same(key, "model name")) {
            cpu.model = cpu.model orelse text.said(value);
        } else if (std.mem.eql(u8, key, "cpu") or text.same(key, "uarch")) {
            cpu.model = cpu.model orelse text.said(value);
        } else if (std.mem.eql(u8, key, "Model")) {
            self.machine = text.said(value);
        } else if (text.same(key, "cpu family")) {
            cpu.family = cpu.family orelse text.number(value);
        } else if (std.mem.eql(u8, key, "model")) {
            cpu.model_number = cpu.model_number orelse text.number(value);
        } else if (text.same(key, "stepping")) {
            cpu.stepping = cpu.stepping orelse text.number(value);
        } else if (text.same(key, "microcode")) {
            cpu.microcode = cpu.microcode orelse text.said(value);
        } else if (text.same(key, "cpu MHz") or text.same(key, "clock")) {
            self.frequency(value);
        } else if (text.same(key, "cache size")) {
            self.cache_bytes = self.cache_bytes orelse text.bytes(value);
        } else if (text.same(key, "flags") or text.same(key, "Features")) {
            self.flags = self.flags orelse value;
        } else if (text.same(key, "bugs")) {
            self.bugs = self.bugs orelse value;
        } else if (text.same(key, "address sizes")) {
            cpu.address_bits = addressBits(value);
        } else if (text.same(key, "isa")) {
            self.isa = self.isa orelse value;
        } else try self.arm_field(key, value);
    }

    fn arm_field(self: *Reader, key: []const u8, value: []const u8) !void {
        if (text.same(key, "CPU implementer")) {
            self.arm = true;
            self.implementer = self.implementer orelse text.number(value);
        } else if (text.same(key, "CPU architecture")) {
            self.arm = true;
            self.arm_architecture = self.arm_architecture orelse
                (if (text.same(value, "AArch64")) 8 else text.number(value));
        } else if (text.same(key, "CPU part")) {
            try self.part(value);
        } else if (text.same(key, "CPU revision")) {
            self.cpu.stepping = self.cpu.stepping orelse text.number(value);
        }
    }

    fn finish(self: *Reader) !inventory.Cpu {
        try self.finishProcessor();
        const cpu = &self.cpu;
        cpu.threads = if (self.threads > 0) self.threads else null;
        if (self.sockets.count() > 0) {
            cpu.sockets = self.sockets.count();
            cpu.cores = if (self.cores.count() > 0) self.cores.count() else null;
            if (self.cores_per_socket) |cores| {
                // Threads that are off line are missing from the file, their cores from what was counted.
                cpu.cores = @max(cpu.cores orelse 0, std.math.mul(u64, cores, self.sockets.count()) catch 0);
            }
        } else if (self.cores_per_socket) |cores| {
            cpu.sockets = 1;
            cpu.cores = cores;
        }
        if (self.flags) |flags| cpu.flags = try text.words(self.arena, flags);
        if (self.bugs) |bugs| cpu.bugs = try text.words(self.arena, bugs);
        if (self.cache_bytes) |size| {
            const caches = try self.arena.alloc(inventory.Cache, 1);
            caches[0] = .{ .type = "last_level", .bytes = size };
            cpu.caches = caches;
        }
        if (cpu.model) |model| {
            if (std.mem.indexOfScalar(u8, model, '@')) |at| cpu.frequency_hz.nominal = text.hertz(model[at + 1 ..], 1);
        }
        if (self.arm) try self.finishArm() else self.finishOthers();
        return cpu.*;
    }

    fn finishArm(self: *Reader) !void {
        const cpu = &self.cpu;
        if (self.implementer) |implementer| {
            cpu.vendor = implementerName(implementer);
            if (self.parts.items.len > 0) {
                var names: std.ArrayList(u8) = .empty;
                for (self.parts.items, 0..) |code, place| {
                    if (place > 0) try names.appendSlice(self.arena, " + ");
                    try names.appendSlice(self.arena, partName(implementer, text.number(code) orelse 0) orelse code);
                }
                cpu.model = names.items;
            }
        }
        cpu.architecture = if ((self.arm_architecture orelse 0) >= 8) "aarch64" else "arm";
        cpu.family = self.arm_architecture;
    }

    fn finishOthers(self: *Reader) void {
        const cpu = &self.cpu;
        if (self.isa) |isa| {
            cpu.architecture = if (text.starts(isa, "rv64")) "riscv64" else if (text.starts(isa, "rv32")) "riscv32" else null;
        }
        var x86 = false;
        for (cpu.flags) |flag| {
            if (std.mem.eql(u8, flag, "lm")) cpu.architecture = "x86_64";
            if (std.mem.eql(u8, flag, "fpu")) x86 = true;
            if (std.mem.eql(u8, flag, "vmx")) cpu.virtualisation.extension = "VT-x";
            if (std.mem.eql(u8, flag, "svm")) cpu.virtualisation.extension = "AMD-V";
            if (std.mem.eql(u8, flag, "hypervisor")) cpu.virtualisation.guest = true;
        }
        if (x86) {
            cpu.architecture = cpu.architecture orelse "i686";
            cpu.byte_order = "little";
            cpu.virtualisation.guest = cpu.virtualisation.guest orelse false;
        }
        if (cpu.vendor == null and cpu.model != null and text.starts(cpu.model.?, "POWER")) {
            cpu.vendor = "IBM";
            cpu.architecture = "ppc64";
        }
    }
};

pub fn addressBits(value: []const u8) inventory.AddressBits {
    var bits: inventory.AddressBits = .{};
    var parts = std.mem.splitScalar(u8, value, ',');
    while (parts.next()) |piece| {
        if (text.has(piece, "physical")) bits.physical = text.number(piece);
        if (text.has(piece, "virtual")) bits.virtual = text.number(piece);
    }
    return bits;
}

/// Whether a line can only stand in /proc/cpuinfo.
pub fn isFirstLine(line: []const u8) bool {
    const pair = text.pair(line) orelse return false;
    return text.same(pair.key, "processor") and !text.starts(line, " ") and
        (text.number(pair.value) != null or text.starts(pair.value, "ARM") or text.starts(pair.value, "AArch64"));
}

/// The number in "processor : 3"; null for any other line.
pub fn processorNumber(line: []const u8) ?u64 {
    const pair = text.pair(line) orelse return null;
    return if (std.mem.eql(u8, pair.key, "processor")) text.number(pair.value) else null;
}

pub fn read(arena: Allocator, document: []const u8) !inventory.Cpu {
    var reader: Reader = .{ .arena = arena };
    var lines = std.mem.splitScalar(u8, document, '\n');
    while (lines.next()) |line| {
        if (text.pair(line)) |pair| try reader.field(pair.key, pair.value);
    }
    return reader.finish();
}

fn implementerName(code: u64) ?[]const u8 {
    return switch (code) {
        0x41 => "ARM",
        0x42 => "Broadcom",
        0x43 => "Cavium",
        0x46 => "Fujitsu",
        0x48 => "HiSilicon",
        0x4e => "NVIDIA",
        0x50 => "APM",
        0x51 => "Qualcomm",
        0x53 => "Samsung",
        0x56 => "Marvell",
        0x61 => "Apple",
        0x69 => "Intel",
        0x6d => "Microsoft",
        0xc0 => "Ampere",
        else => null,
    };
}

fn partName(implementer: u64, part: u64) ?[]const u8 {
    return switch (implementer << 16 | part) {
        0x41_0c07 => "Cortex-A7",
        0x41_0c08 => "Cortex-A8",
        0x41_0c09 => "Cortex-A9",
        0x41_0c0f => "Cortex-A15",
        0x41_0b76 => "ARM1176",
        0x41_0d03 => "Cortex-A53",
        0x41_0d04 => "Cortex-A35",
        0x41_0d05 => "Cortex-A55",
        0x41_0d07 => "Cortex-A57",
        0x41_0d08 => "Cortex-A72",
        0x41_0d09 => "Cortex-A73",
        0x41_0d0a => "Cortex-A75",
        0x41_0d0b => "Cortex-A76",
        0x41_0d0c => "Neoverse-N1",
        0x41_0d0d => "Cortex-A77",
        0x41_0d40 => "Neoverse-V1",
        0x41_0d41 => "Cortex-A78",
        0x41_0d44 => "Cortex-X1",
        0x41_0d46 => "Cortex-A510",
        0x41_0d47 => "Cortex-A710",
        0x41_0d48 => "Cortex-X2",
        0x41_0d49 => "Neoverse-N2",
        0x41_0d4d => "Cortex-A715",
        0x41_0d4e => "Cortex-X3",
        0x41_0d4f => "Neoverse-V2",
        0x43_00a1 => "ThunderX",
        0x43_00af => "ThunderX2",
        0x46_0001 => "A64FX",
        0x48_0d01 => "Kunpeng-920",
        0x4e_0004 => "Carmel",
        0xc0_0ac3 => "Ampere-1",
        0xc0_0ac4 => "Ampere-1a",
        else => null,
    };
}
