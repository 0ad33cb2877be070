//! hardware: a normalised inventory out of /proc/cpuinfo, lscpu and dmidecode.
//!
//! A WASI preview 1 command: the documents on standard input, one JSON object on standard output. What cannot be used
//! ends with exit code 1 and a JSON error on standard error. It imports fd_read, fd_write and proc_exit and nothing else.
const std = @import("std");
const inventory = @import("inventory.zig");
const merge = @import("merge.zig");
const text = @import("text.zig");

const wasi = std.os.wasi;
const Allocator = std.mem.Allocator;
const INPUT_BYTES_MAX = 8 << 20;
const STDIN: wasi.fd_t = 0;
const STDOUT: wasi.fd_t = 1;
const STDERR: wasi.fd_t = 2;

pub const panic = std.debug.FullPanic(stop);

fn stop(message: []const u8, _: ?usize) noreturn {
    write(STDERR, "{\"error\":{\"code\":\"internal\",\"message\":\"");
    write(STDERR, message);
    write(STDERR, "\"}}\n");
    wasi.proc_exit(2);
}

fn write(file: wasi.fd_t, bytes: []const u8) void {
    var rest = bytes;
    while (rest.len > 0) {
        const piece = [_]wasi.ciovec_t{.{ .base = rest.ptr, .len = rest.len }};
        var written: usize = 0;
        if (wasi.fd_write(file, &piece, 1, &written) != .SUCCESS or written == 0) wasi.proc_exit(3);
        rest = rest[written..];
    }
}

const InputError = error{ OutOfMemory, InputUnreadable, InputTooLarge };

fn readAll(arena: Allocator) InputError![]u8 {
    var input: std.ArrayList(u8) = .empty;
    while (true) {
        if (input.items.len > INPUT_BYTES_MAX) return error.InputTooLarge;
        try input.ensureUnusedCapacity(arena, 64 << 10);
        const free = input.unusedCapacitySlice();
        const piece = [_]wasi.iovec_t{.{ .base = free.ptr, .len = free.len }};
        var count: usize = 0;
        if (wasi.fd_read(STDIN, &piece, 1, &count) != .SUCCESS) return error.InputUnreadable;
        if (count == 0) return input.items;
        input.items.len += count;
    }
}

/// Texts of firmware are in any encoding: bytes that are not UTF-8, and NUL, become question marks.
fn clean(input: []u8) void {
    var index: usize = 0;
    while (index < input.len) {
        const length = std.unicode.utf8ByteSequenceLength(input[index]) catch 0;
        const valid = length > 0 and index + length <= input.len and std.unicode.utf8ValidateSlice(input[index .. index + length]);
        if (!valid or input[index] == 0) {
            input[index] = '?';
            index += 1;
        } else index += length;
    }
}

/// `{"text": …}` and `{"documents": […]}` wrap what could also come as it is.
fn unwrapped(arena: Allocator, input: []const u8) error{OutOfMemory}![]const u8 {
    if (!text.starts(std.mem.trimStart(u8, input, " \t\r\n"), "{")) return input;
    const value = std.json.parseFromSliceLeaky(std.json.Value, arena, input, .{}) catch |failure| switch (failure) {
        error.OutOfMemory => return error.OutOfMemory,
        else => return input,
    };
    if (value != .object) return input;
    if (value.object.get("text")) |whole| {
        if (whole == .string) return withoutNul(arena, whole.string);
    }
    const list = value.object.get("documents") orelse return input;
    if (list != .array) return input;
    var joined: std.ArrayList(u8) = .empty;
    for (list.array.items) |item| {
        if (item != .string) continue;
        try joined.appendSlice(arena, item.string);
        try joined.append(arena, '\n');
    }
    return withoutNul(arena, joined.items);
}

fn withoutNul(arena: Allocator, input: []const u8) error{OutOfMemory}![]const u8 {
    const copy = try arena.dupe(u8, input);
    clean(copy);
    return copy;
}

fn refuse(code: []const u8, message: []const u8) u8 {
    write(STDERR, "{\"error\":{\"code\":\"");
    write(STDERR, code);
    write(STDERR, "\",\"message\":\"");
    write(STDERR, message);
    write(STDERR, "\"}}\n");
    return 1;
}

fn answer(arena: Allocator) !void {
    const raw = try readAll(arena);
    clean(raw);
    const input = try unwrapped(arena, raw);
    if (std.mem.trim(u8, input, " \t\r\n").len == 0) return error.NoInput;
    const result = try merge.build(arena, input);
    var output: std.Io.Writer.Allocating = .init(arena);
    try std.json.Stringify.value(result, .{}, &output.writer);
    try output.writer.writeByte('\n');
    write(STDOUT, output.written());
}

pub fn main() u8 {
    var arena = std.heap.ArenaAllocator.init(std.heap.wasm_allocator);
    answer(arena.allocator()) catch |failure| return switch (failure) {
        error.OutOfMemory, error.WriteFailed => refuse("out_of_memory", "the documents do not fit into the memory limit"),
        error.InputUnreadable => refuse("input_unreadable", "standard input could not be read"),
        error.InputTooLarge => refuse("input_too_large", "expected at most 8 MiB of input, got more"),
        error.NoInput => refuse("no_input", "expected /proc/cpuinfo, lscpu or dmidecode text, got nothing"),
        error.InvalidJson => refuse("invalid_json", "expected the JSON of lscpu -J, or an object with text or documents, got other JSON"),
        error.NothingRecognised => refuse("unrecognised_input", "expected /proc/cpuinfo, lscpu or dmidecode text, got something else"),
    };
    return 0;
}

test {
    _ = text;
}
