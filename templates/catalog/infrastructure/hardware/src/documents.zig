//! Takes an input apart into the documents that it consists of.
const std = @import("std");
const text = @import("text.zig");
const cpuinfo = @import("cpuinfo.zig");
const lscpu = @import("lscpu.zig");
const dmidecode = @import("dmidecode.zig");

const Allocator = std.mem.Allocator;

pub const Format = enum { cpuinfo, lscpu, lscpu_json, dmidecode };

pub const Document = struct {
    format: Format,
    text: []const u8,
    line: usize,
    lines: usize,
};

pub const Parts = struct { documents: []const Document, strange_lines: usize };

const Splitter = struct {
    arena: Allocator,
    input: []const u8,
    found: std.ArrayList(Document) = .empty,
    strange: usize = 0,
    current: ?Format = null,
    start: usize = 0,
    start_line: usize = 1,
    end: usize = 0,
    end_line: usize = 0,
    seen: std.AutoHashMapUnmanaged(u64, void) = .empty,

    fn close(self: *Splitter) !void {
        if (self.current) |format| {
            try self.found.append(self.arena, .{
                .format = format,
                .text = self.input[self.start..self.end],
                .line = self.start_line,
                .lines = self.end_line - self.start_line + 1,
            });
        }
        self.current = null;
        self.seen.clearRetainingCapacity();
    }

    fn open(self: *Splitter, format: Format, offset: usize, line: usize) !void {
        try self.close();
        self.current = format;
        self.start = offset;
        self.start_line = line;
    }

    fn extend(self: *Splitter, end: usize, line: usize) void {
        self.end = end;
        self.end_line = line;
    }
};

/// Find the documents in order. Lines before the first one, and lines that fit none, are counted as strange.
pub fn split(arena: Allocator, input: []const u8) !Parts {
    var splitter: Splitter = .{ .arena = arena, .input = input };
    var offset: usize = 0;
    var number: usize = 1;
    while (offset < input.len) : (number += 1) {
        const end = std.mem.indexOfScalarPos(u8, input, offset, '\n') orelse input.len;
        const line = std.mem.trimEnd(u8, input[offset..end], "\r");
        if (text.starts(line, "{") and splitter.current != .dmidecode) {
            if (jsonEnd(input[offset..])) |length| {
                try splitter.open(.lscpu_json, offset, number);
                const last = number + std.mem.count(u8, input[offset .. offset + length], "\n");
                splitter.extend(offset + length, last);
                try splitter.close();
                number = last;
                offset = (std.mem.indexOfScalarPos(u8, input, offset + length, '\n') orelse input.len) + 1;
                continue;
            }
        }
        try place(&splitter, line, offset, end, number);
        offset = end + 1;
    }
    try splitter.close();
    return .{ .documents = splitter.found.items, .strange_lines = splitter.strange };
}

fn place(splitter: *Splitter, line: []const u8, offset: usize, end: usize, number: usize) !void {
    if (text.trim(line).len == 0) return;
    if (lscpu.isFirstLine(line)) {
        try splitter.open(.lscpu, offset, number);
    } else if (dmidecode.isFirstLine(line)) {
        if (splitter.current != .dmidecode or text.starts(line, "# dmidecode")) try splitter.open(.dmidecode, offset, number);
    } else if (cpuinfo.isFirstLine(line)) {
        if (splitter.current != .cpuinfo) try splitter.open(.cpuinfo, offset, number);
        if (cpuinfo.processorNumber(line)) |processor| {
            if (splitter.seen.contains(processor)) try splitter.open(.cpuinfo, offset, number);
            try splitter.seen.put(splitter.arena, processor, {});
        }
    } else if (splitter.current) |current| {
        const fits = current == .dmidecode or text.pair(line) != null;
        if (!fits) {
            splitter.strange += 1;
            return;
        }
    } else {
        splitter.strange += 1;
        return;
    }
    splitter.extend(end, number);
}

/// Length of the JSON object that the text begins with; null when it does not end.
fn jsonEnd(input: []const u8) ?usize {
    var depth: usize = 0;
    var quoted = false;
    var escaped = false;
    for (input, 0..) |sign, index| {
        if (quoted) {
            if (escaped) {
                escaped = false;
            } else if (sign == '\\') {
                escaped = true;
            } else if (sign == '"') quoted = false;
            continue;
        }
        switch (sign) {
            '"' => quoted = true,
            '{', '[' => depth += 1,
            '}', ']' => {
                depth -|= 1;
                if (depth == 0) return index + 1;
            },
            else => {},
        }
    }
    return null;
}
