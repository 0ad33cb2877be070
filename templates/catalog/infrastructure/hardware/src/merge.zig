//! One inventory out of several documents: for each fact the most exact document that tells it.
const std = @import("std");
const text = @import("text.zig");
const inventory = @import("inventory.zig");
const cpuinfo = @import("cpuinfo.zig");
const lscpu = @import("lscpu.zig");
const dmidecode = @import("dmidecode.zig");
const documents = @import("documents.zig");

const Allocator = std.mem.Allocator;

pub const Error = error{ OutOfMemory, NothingRecognised, InvalidJson };

pub fn build(arena: Allocator, input: []const u8) Error!inventory.Inventory {
    const parts = try documents.split(arena, input);
    var result: inventory.Inventory = .{};
    var sources: std.ArrayList(inventory.Source) = .empty;
    var warnings: std.ArrayList(inventory.Warning) = .empty;
    var from_lscpu: ?inventory.Cpu = null;
    var from_cpuinfo: ?inventory.Cpu = null;
    var machine: ?dmidecode.Machine = null;
    var invalid_json = false;
    for (parts.documents) |document| {
        var again = false;
        switch (document.format) {
            .cpuinfo => {
                again = from_cpuinfo != null;
                if (!again) from_cpuinfo = try cpuinfo.read(arena, document.text);
            },
            .lscpu => {
                again = from_lscpu != null;
                if (!again) from_lscpu = try lscpu.read(arena, document.text);
            },
            .lscpu_json => {
                const read = try readJson(arena, document.text) orelse {
                    invalid_json = true;
                    continue;
                };
                again = from_lscpu != null;
                if (!again) from_lscpu = read;
            },
            .dmidecode => {
                again = machine != null;
                if (!again) machine = try dmidecode.read(arena, document.text);
            },
        }
        const format: []const u8 = @tagName(document.format);
        try sources.append(arena, .{ .format = format, .line = document.line, .lines = document.lines });
        if (again) try warn(arena, &warnings, "repeated_source", "line {d}: a second {s} document is left out; give the machines one by one", .{ document.line, format });
    }
    if (sources.items.len == 0) return if (invalid_json) error.InvalidJson else error.NothingRecognised;
    if (invalid_json) try warn(arena, &warnings, "unrecognised_json", "a JSON object that is not the output of lscpu -J is left out", .{});
    if (parts.strange_lines > 0) try warn(arena, &warnings, "unrecognised_lines", "{d} lines belong to no known document", .{parts.strange_lines});
    const from_firmware = if (machine) |known| known.cpu else null;
    const told = [_]?inventory.Cpu{ from_lscpu, from_cpuinfo, from_firmware };
    for (told) |cpu| {
        if (cpu) |known| {
            if (result.cpu) |*merged| {
                try disagreements(arena, &warnings, merged.*, known);
                fill(inventory.Cpu, merged, known);
            } else result.cpu = known;
        }
    }
    if (machine) |known| {
        result.memory = known.memory;
        result.bios = known.bios;
        result.system = known.system;
        result.board = known.board;
        result.chassis = known.chassis;
    }
    result.sources = sources.items;
    result.warnings = warnings.items;
    return result;
}

fn readJson(arena: Allocator, document: []const u8) error{OutOfMemory}!?inventory.Cpu {
    const value = std.json.parseFromSliceLeaky(std.json.Value, arena, document, .{}) catch |failure| switch (failure) {
        error.OutOfMemory => return error.OutOfMemory,
        else => return null,
    };
    if (value != .object) return null;
    return lscpu.readJson(arena, value.object.get("lscpu") orelse return null);
}

/// Take from `more` what `target` does not say.
fn fill(comptime T: type, target: *T, more: T) void {
    inline for (std.meta.fields(T)) |field| {
        const mine = &@field(target, field.name);
        const theirs = @field(more, field.name);
        switch (@typeInfo(field.type)) {
            .optional => if (mine.* == null) {
                mine.* = theirs;
            },
            .pointer => if (mine.len == 0) {
                mine.* = theirs;
            },
            .@"struct" => fill(field.type, mine, theirs),
            else => comptime unreachable,
        }
    }
}

fn disagreements(arena: Allocator, warnings: *std.ArrayList(inventory.Warning), a: inventory.Cpu, b: inventory.Cpu) !void {
    const counts = [_]struct { name: []const u8, a: ?u64, b: ?u64 }{
        .{ .name = "sockets", .a = a.sockets, .b = b.sockets },
        .{ .name = "cores", .a = a.cores, .b = b.cores },
        .{ .name = "threads", .a = a.threads, .b = b.threads },
    };
    for (counts) |count| {
        if (count.a != null and count.b != null and count.a.? != count.b.?)
            try warn(arena, warnings, "disagreement", "documents disagree on {s}: {d} is kept, {d} is not", .{ count.name, count.a.?, count.b.? });
    }
    if (a.model != null and b.model != null and !text.has(squeezed(arena, a.model.?), squeezed(arena, b.model.?)) and
        !text.has(squeezed(arena, b.model.?), squeezed(arena, a.model.?)))
        try warn(arena, warnings, "disagreement", "documents disagree on the model: {s} is kept, {s} is not", .{ a.model.?, b.model.? });
}

fn squeezed(arena: Allocator, name: []const u8) []const u8 {
    const copy = arena.alloc(u8, name.len) catch return name;
    var length: usize = 0;
    for (name) |sign| {
        if (sign == ' ') continue;
        copy[length] = std.ascii.toLower(sign);
        length += 1;
    }
    return copy[0..length];
}

fn warn(arena: Allocator, warnings: *std.ArrayList(inventory.Warning), code: []const u8, comptime format: []const u8, values: anytype) !void {
    try warnings.append(arena, .{ .code = code, .message = try std.fmt.allocPrint(arena, format, values) });
}
