//! What `lscpu` prints: flat or in sections, or as JSON (`lscpu -J`).
const std = @import("std");
const text = @import("text.zig");
const inventory = @import("inventory.zig");
const cpuinfo = @import("cpuinfo.zig");

const Allocator = std.mem.Allocator;
const MHZ = 1_000_000;
const JSON_DEPTH_MAX = 8;

const Reader = struct {
    arena: Allocator,
    cpu: inventory.Cpu = .{},
    threads_per_core: ?u64 = null,
    cores_per_socket: ?u64 = null,
    cores_per_cluster: ?u64 = null,
    clusters: ?u64 = null,
    full: bool = false,
    caches: std.ArrayList(inventory.Cache) = .empty,
    vulnerabilities: std.ArrayList(inventory.Vulnerability) = .empty,

    fn field(self: *Reader, key: []const u8, value: []const u8, section: []const u8) !void {
        const cpu = &self.cpu;
        if (text.starts(key, "Vulnerability ")) return self.vulnerability(key["Vulnerability ".len..], value);
        if (text.same(section, "Vulnerabilities")) return self.vulnerability(key, value);
        if (try self.cache(key, value)) return;
        const eql = text.same;
        if (eql(key, "Architecture")) {
            cpu.architecture = text.said(value);
        } else if (eql(key, "Byte Order")) {
            cpu.byte_order = if (text.starts(value, "Little")) "little" else if (text.starts(value, "Big")) "big" else null;
        } else if (eql(key, "CPU(s)")) {
            cpu.threads = text.number(value);
        } else if (eql(key, "Vendor ID")) {
            cpu.vendor = cpu.vendor orelse text.said(value);
        } else if (eql(key, "Model name")) {
            try self.modelName(value);
        } else if (eql(key, "CPU family")) {
            cpu.family = text.number(value);
        } else if (eql(key, "Model")) {
            cpu.model_number = cpu.model_number orelse text.number(value);
        } else if (eql(key, "Stepping")) {
            cpu.stepping = if (value.len > 0 and value[0] == 'r') text.number(value[1..]) else text.number(value);
        } else if (eql(key, "Thread(s) per core")) {
            self.threads_per_core = text.number(value);
        } else if (eql(key, "Core(s) per socket")) {
            self.cores_per_socket = text.number(value);
        } else if (eql(key, "Core(s) per cluster")) {
            self.cores_per_cluster = text.number(value);
        } else if (eql(key, "Cluster(s)")) {
            self.clusters = text.number(value);
        } else if (eql(key, "Socket(s)")) {
            cpu.sockets = text.number(value);
        } else if (eql(key, "NUMA node(s)")) {
            cpu.numa_nodes = text.number(value);
        } else if (eql(key, "Address sizes")) {
            cpu.address_bits = cpuinfo.addressBits(value);
        } else if (eql(key, "Flags")) {
            cpu.flags = try text.words(self.arena, value);
        } else self.speedOrVirtual(key, value);
    }

    fn speedOrVirtual(self: *Reader, key: []const u8, value: []const u8) void {
        const cpu = &self.cpu;
        const eql = text.same;
        if (eql(key, "CPU MHz")) {
            cpu.frequency_hz.current_lowest = text.hertz(value, MHZ);
            cpu.frequency_hz.current_highest = cpu.frequency_hz.current_lowest;
        } else if (eql(key, "CPU max MHz")) {
            cpu.frequency_hz.maximum = text.hertz(value, MHZ);
        } else if (eql(key, "CPU min MHz")) {
            cpu.frequency_hz.minimum = text.hertz(value, MHZ);
        } else if (eql(key, "Virtualization")) {
            cpu.virtualisation.extension = text.said(value);
        } else if (eql(key, "Hypervisor vendor")) {
            cpu.virtualisation.hypervisor = text.said(value);
            cpu.virtualisation.guest = true;
        } else if (eql(key, "Virtualization type")) {
            if (text.said(value) != null) cpu.virtualisation.guest = true;
        }
    }

    /// Machines with two kinds of core list two models; both are kept.
    fn modelName(self: *Reader, value: []const u8) !void {
        const name = text.said(value) orelse return;
        if (self.cpu.model) |known| {
            if (!text.has(known, name)) self.cpu.model = try std.fmt.allocPrint(self.arena, "{s} + {s}", .{ known, name });
        } else self.cpu.model = name;
    }

    fn vulnerability(self: *Reader, key: []const u8, value: []const u8) !void {
        const name = try self.arena.dupe(u8, key);
        for (name) |*sign| sign.* = if (sign.* == ' ' or sign.* == '-') '_' else std.ascii.toLower(sign.*);
        const semicolon = std.mem.indexOfAny(u8, value, ";:");
        const head = text.trim(if (semicolon) |place| value[0..place] else value);
        const state: []const u8 = if (text.same(head, "Not affected"))
            "not_affected"
        else if (text.starts(head, "Mitigation"))
            "mitigated"
        else if (text.starts(head, "Vulnerable"))
            "vulnerable"
        else
            "unknown";
        const detail = if (std.mem.eql(u8, state, "unknown"))
            text.said(value)
        else if (semicolon) |place| text.said(value[place + 1 ..]) else null;
        try self.vulnerabilities.append(self.arena, .{ .name = name, .state = state, .detail = detail });
    }

    /// "L1d cache: 96 KiB (2 instances)" sums all instances; "L1d cache: 32K" of older versions is one of them.
    fn cache(self: *Reader, key: []const u8, value: []const u8) !bool {
        if (key.len < 2 or key[0] != 'L' or key[1] < '1' or key[1] > '4') return false;
        const rest = text.trim(key[2..]);
        const kind: []const u8 = if (rest.len > 0 and rest[0] == 'd')
            "data"
        else if (rest.len > 0 and rest[0] == 'i')
            "instruction"
        else
            "unified";
        if (!(rest.len == 0 or text.same(rest, "cache") or rest.len == 1 or text.same(rest[1..], " cache"))) return false;
        const size = text.bytes(value) orelse return false;
        var found: inventory.Cache = .{ .level = key[1] - '0', .type = kind };
        if (std.mem.indexOfScalar(u8, value, '(')) |open| {
            found.instances = text.number(value[open + 1 ..]);
            found.bytes_total = size;
            if (found.instances) |count| found.bytes = if (count > 0) size / count else null;
        } else if (text.has(value, "iB")) {
            found.bytes_total = size;
        } else found.bytes = size;
        try self.caches.append(self.arena, found);
        return true;
    }

    fn finish(self: *Reader) inventory.Cpu {
        const cpu = &self.cpu;
        const sockets = cpu.sockets orelse 0;
        if (self.cores_per_socket) |cores| {
            cpu.cores = if (sockets > 0) std.math.mul(u64, cores, sockets) catch null else cores;
        } else if (self.cores_per_cluster) |cores| {
            cpu.cores = std.math.mul(u64, cores, self.clusters orelse 1) catch null;
        } else if (cpu.threads) |threads| {
            if (self.threads_per_core) |each| {
                if (each > 0) cpu.cores = threads / each;
            }
        }
        if (cpu.sockets == 0) cpu.sockets = null;
        if (cpu.virtualisation.guest == null and self.full) cpu.virtualisation.guest = false;
        if (cpu.model) |model| {
            if (std.mem.indexOfScalar(u8, model, '@')) |at| cpu.frequency_hz.nominal = text.hertz(model[at + 1 ..], 1);
        }
        cpu.caches = self.caches.items;
        cpu.vulnerabilities = self.vulnerabilities.items;
        return cpu.*;
    }
};

pub fn isFirstLine(line: []const u8) bool {
    return text.starts(line, "Architecture:");
}

/// Whether a line can belong to the output: "Key: value", possibly indented.
pub fn isLine(line: []const u8) bool {
    return text.pair(line) != null;
}

pub fn read(arena: Allocator, document: []const u8) !inventory.Cpu {
    var reader: Reader = .{ .arena = arena };
    var section: []const u8 = "";
    var lines = std.mem.splitScalar(u8, document, '\n');
    while (lines.next()) |line| {
        const pair = text.pair(line) orelse continue;
        if (line[0] != ' ') {
            section = if (pair.value.len == 0) pair.key else "";
            if (section.len > 0) continue;
        }
        if (text.same(pair.key, "Vulnerability Meltdown") or text.same(section, "Vulnerabilities")) reader.full = true;
        try reader.field(pair.key, pair.value, section);
    }
    return reader.finish();
}

pub fn readJson(arena: Allocator, value: std.json.Value) !?inventory.Cpu {
    var reader: Reader = .{ .arena = arena };
    if (!try readEntries(&reader, value, "", 0)) return null;
    return reader.finish();
}

fn readEntries(reader: *Reader, value: std.json.Value, section: []const u8, depth: usize) !bool {
    if (value != .array or depth > JSON_DEPTH_MAX) return false;
    for (value.array.items) |entry| {
        if (entry != .object) return false;
        const name = entry.object.get("field") orelse return false;
        if (name != .string) return false;
        const key = std.mem.trimEnd(u8, name.string, ": ");
        if (entry.object.get("data")) |data| {
            if (data == .string) try reader.field(key, data.string, section);
        }
        if (text.same(key, "Vulnerabilities") or text.starts(key, "Vulnerability ")) reader.full = true;
        if (entry.object.get("children")) |children| _ = try readEntries(reader, children, key, depth + 1);
    }
    return true;
}
