//! What `dmidecode` prints: records of "Handle 0x…, DMI type N", a title, and indented fields.
const std = @import("std");
const text = @import("text.zig");
const inventory = @import("inventory.zig");

const Allocator = std.mem.Allocator;
const MHZ = 1_000_000;

const Title = struct { name: []const u8, type: u64 };

/// `dmidecode -q` leaves the handles out: then the titles tell the types.
const titles = [_]Title{
    .{ .name = "BIOS Information", .type = 0 },
    .{ .name = "System Information", .type = 1 },
    .{ .name = "Base Board Information", .type = 2 },
    .{ .name = "Chassis Information", .type = 3 },
    .{ .name = "Processor Information", .type = 4 },
    .{ .name = "Cache Information", .type = 7 },
    .{ .name = "Physical Memory Array", .type = 16 },
    .{ .name = "Memory Device", .type = 17 },
};

pub const Machine = struct {
    cpu: ?inventory.Cpu = null,
    memory: ?inventory.Memory = null,
    bios: ?inventory.Bios = null,
    system: ?inventory.Product = null,
    board: ?inventory.Product = null,
    chassis: ?inventory.Chassis = null,
};

/// The fields of one record; the values of a list are joined with a line break.
const Record = struct {
    fields: std.ArrayList(text.Pair) = .empty,

    fn get(self: *const Record, key: []const u8) ?[]const u8 {
        for (self.fields.items) |pair| {
            if (text.same(pair.key, key)) return text.said(pair.value);
        }
        return null;
    }

    fn bytes(self: *const Record, key: []const u8) ?u64 {
        return text.bytes(self.get(key) orelse return null);
    }

    fn number(self: *const Record, key: []const u8) ?u64 {
        return text.number(self.get(key) orelse return null);
    }

    fn hertz(self: *const Record, key: []const u8) ?u64 {
        return text.hertz(self.get(key) orelse return null, MHZ);
    }
};

const Reader = struct {
    arena: Allocator,
    machine: Machine = .{},
    modules: std.ArrayList(inventory.Module) = .empty,
    caches: std.ArrayList(inventory.Cache) = .empty,
    slots: u64 = 0,
    bytes_total: u64 = 0,
    arrays: bool = false,
    array_devices: u64 = 0,

    fn record(self: *Reader, kind: u64, fields: *const Record) !void {
        const machine = &self.machine;
        switch (kind) {
            0 => if (machine.bios == null) {
                machine.bios = .{
                    .vendor = fields.get("Vendor"),
                    .version = fields.get("Version"),
                    .release_date = fields.get("Release Date"),
                    .rom_bytes = fields.bytes("ROM Size"),
                    .revision = fields.get("BIOS Revision"),
                };
            },
            1 => if (machine.system == null) {
                machine.system = product(fields);
            },
            2 => if (machine.board == null) {
                machine.board = product(fields);
            },
            3 => if (machine.chassis == null) {
                machine.chassis = .{
                    .manufacturer = fields.get("Manufacturer"),
                    .type = fields.get("Type"),
                    .version = fields.get("Version"),
                    .serial_number = fields.get("Serial Number"),
                };
            },
            4 => try self.processor(fields),
            7 => try self.cache(fields),
            16 => self.memoryArray(fields),
            17 => try self.memoryDevice(fields),
            else => {},
        }
    }

    fn processor(self: *Reader, fields: *const Record) !void {
        if (fields.get("Status")) |status| {
            if (!text.starts(status, "Populated")) return;
        }
        if (self.machine.cpu == null) self.machine.cpu = .{ .sockets = 0, .cores = 0, .threads = 0 };
        const cpu = &self.machine.cpu.?;
        cpu.sockets = cpu.sockets.? + 1;
        cpu.cores = sum(cpu.cores, fields.number("Core Count"));
        cpu.threads = sum(cpu.threads, fields.number("Thread Count"));
        cpu.vendor = cpu.vendor orelse fields.get("Manufacturer");
        cpu.model = cpu.model orelse fields.get("Version");
        cpu.frequency_hz.maximum = cpu.frequency_hz.maximum orelse fields.hertz("Max Speed");
        cpu.frequency_hz.current_lowest = cpu.frequency_hz.current_lowest orelse fields.hertz("Current Speed");
        cpu.frequency_hz.current_highest = cpu.frequency_hz.current_lowest;
        if (fields.get("Signature")) |signature| {
            var parts = std.mem.splitScalar(u8, signature, ',');
            while (parts.next()) |part| {
                const piece = text.trim(part);
                if (text.starts(piece, "Family ")) cpu.family = text.number(piece["Family ".len..]);
                if (text.starts(piece, "Model ")) cpu.model_number = text.number(piece["Model ".len..]);
                if (text.starts(piece, "Stepping ")) cpu.stepping = text.number(piece["Stepping ".len..]);
            }
        }
    }

    /// A record stands for the caches of one socket: equal ones of further sockets are counted as instances.
    fn cache(self: *Reader, fields: *const Record) !void {
        const size = fields.bytes("Installed Size") orelse return;
        if (size == 0) return;
        const configuration = fields.get("Configuration") orelse "";
        const level = if (std.mem.indexOf(u8, configuration, "Level ")) |place|
            text.number(configuration[place + "Level ".len ..])
        else
            null;
        const named = fields.get("System Type") orelse "";
        const kind: ?[]const u8 = if (text.same(named, "Data"))
            "data"
        else if (text.same(named, "Instruction"))
            "instruction"
        else if (text.same(named, "Unified")) "unified" else null;
        for (self.caches.items) |*known| {
            const alike = if (known.type) |a| (if (kind) |b| std.mem.eql(u8, a, b) else false) else kind == null;
            if (alike and known.level == level and known.bytes == size) {
                known.instances = known.instances.? + 1;
                known.bytes_total = sum(known.bytes_total, size);
                return;
            }
        }
        try self.caches.append(self.arena, .{ .level = level, .type = kind, .bytes = size, .instances = 1, .bytes_total = size });
    }

    fn memoryArray(self: *Reader, fields: *const Record) void {
        if (fields.get("Use")) |use| {
            if (!text.same(use, "System Memory")) return;
        }
        const memory = self.theMemory();
        memory.bytes_maximum = sum(memory.bytes_maximum, fields.bytes("Maximum Capacity"));
        memory.error_correction = memory.error_correction orelse fields.get("Error Correction Type");
        self.array_devices = std.math.add(u64, self.array_devices, fields.number("Number Of Devices") orelse 0) catch 0;
    }

    fn memoryDevice(self: *Reader, fields: *const Record) !void {
        _ = self.theMemory();
        self.slots += 1;
        const size = fields.get("Size") orelse return;
        const bytes = text.bytes(size) orelse return;
        if (bytes == 0) return;
        self.bytes_total = std.math.add(u64, self.bytes_total, bytes) catch return;
        const total_width = fields.number("Total Width");
        const data_width = fields.number("Data Width");
        try self.modules.append(self.arena, .{
            .locator = fields.get("Locator"),
            .bank = fields.get("Bank Locator"),
            .bytes = bytes,
            .type = fields.get("Type"),
            .form_factor = fields.get("Form Factor"),
            .speed_mts = fields.number("Speed"),
            .configured_speed_mts = fields.number("Configured Memory Speed") orelse fields.number("Configured Clock Speed"),
            .manufacturer = fields.get("Manufacturer"),
            .part_number = fields.get("Part Number"),
            .serial_number = fields.get("Serial Number"),
            .rank = fields.number("Rank"),
            .ecc = if (total_width != null and data_width != null and data_width.? > 0) total_width.? > data_width.? else null,
        });
    }

    fn theMemory(self: *Reader) *inventory.Memory {
        if (self.machine.memory == null) self.machine.memory = .{};
        return &self.machine.memory.?;
    }

    fn finish(self: *Reader) Machine {
        if (self.machine.memory) |*memory| {
            memory.modules = self.modules.items;
            if (self.slots > 0) {
                memory.slots = self.slots;
                memory.slots_used = self.modules.items.len;
                memory.bytes_total = self.bytes_total;
            } else if (self.array_devices > 0) memory.slots = self.array_devices;
        }
        if (self.machine.cpu == null and self.caches.items.len > 0) self.machine.cpu = .{};
        if (self.machine.cpu) |*cpu| {
            cpu.caches = self.caches.items;
            if (cpu.cores == 0) cpu.cores = null;
            if (cpu.threads == 0) cpu.threads = null;
        }
        return self.machine;
    }
};

fn sum(a: ?u64, b: ?u64) ?u64 {
    if (a == null) return b;
    return std.math.add(u64, a.?, b orelse 0) catch a;
}

fn product(fields: *const Record) inventory.Product {
    return .{
        .manufacturer = fields.get("Manufacturer"),
        .product = fields.get("Product Name"),
        .version = fields.get("Version"),
        .serial_number = fields.get("Serial Number"),
        .uuid = fields.get("UUID"),
        .family = fields.get("Family"),
    };
}

fn titleType(line: []const u8) ?u64 {
    for (titles) |title| {
        if (std.mem.eql(u8, title.name, text.trim(line))) return title.type;
    }
    return null;
}

fn handleType(line: []const u8) ?u64 {
    if (!text.starts(line, "Handle 0x")) return null;
    const place = std.mem.indexOf(u8, line, "DMI type ") orelse return null;
    return text.number(line[place + "DMI type ".len ..]);
}

pub fn isFirstLine(line: []const u8) bool {
    return text.starts(line, "# dmidecode") or handleType(line) != null or titleType(line) != null;
}

pub fn read(arena: Allocator, document: []const u8) !Machine {
    var reader: Reader = .{ .arena = arena };
    var kind: ?u64 = null;
    var record: Record = .{};
    var lines = std.mem.splitScalar(u8, document, '\n');
    while (lines.next()) |raw| {
        const line = std.mem.trimEnd(u8, raw, " \t\r");
        const indented = line.len > 0 and (line[0] == '\t' or line[0] == ' ');
        if (line.len == 0 or !indented) {
            const handle = handleType(line);
            const titled = titleType(line);
            if (line.len == 0 or handle != null or (titled != null and kind == null)) {
                if (kind) |known| try reader.record(known, &record);
                record = .{};
                kind = handle orelse titled;
            }
            continue;
        }
        if (kind == null) continue;
        if (text.pair(line)) |pair| {
            try record.fields.append(arena, pair);
        }
    }
    if (kind) |known| try reader.record(known, &record);
    return reader.finish();
}
