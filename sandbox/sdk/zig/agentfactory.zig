//! What an agent in Zig may use of the node that runs it.
//!
//!     const af = @import("agentfactory.zig");
//!
//!     fn process(arena: std.mem.Allocator, input: []const u8) ![]const u8 {
//!         af.log(arena, .info, "started");
//!         return std.fmt.allocPrint(arena, "{d}", .{input.len});
//!     }
//!     pub fn main() u8 {
//!         return af.run(process);
//!     }
//!
//! An agent is a WASI preview 1 command: its input is stdin, its output stdout. An error that `process` returns ends the
//! invocation; its name stands in the log. Memory comes from one arena: an instance lives for one call.
const std = @import("std");

const wasi = std.os.wasi;
const Allocator = std.mem.Allocator;
const Value = std.json.Value;

extern "agentfactory" fn call(
    op: [*]const u8,
    op_len: usize,
    request: [*]const u8,
    request_len: usize,
    response: [*]u8,
    response_cap: usize,
) i32;

/// Why the node refused or could not do what was asked; `lastMessage` has the text.
pub const HostError = error{ Denied, Conflict, Quota, NotFound, Invalid, Failed, Budget };
pub const Error = HostError || Allocator.Error;

pub const Level = enum { debug, info, warning, @"error" };
pub const Entry = struct { value: []const u8, version: u64 };
pub const Page = struct { keys: []const []const u8, cursor: ?[]const u8 };
pub const Budget = struct { fuel: u64, wall_ms: u64, memory_bytes: u64, log_bytes: u64, host_calls: u64 };

var message: []const u8 = "";

/// The message of the last HostError, for people.
pub fn lastMessage() []const u8 {
    return message;
}

/// Any call by its name ("kv.get") with its argument, which is sent as JSON: what it answered.
pub fn ask(arena: Allocator, op: []const u8, argument: anytype) Error!Value {
    const request = std.json.Stringify.valueAlloc(arena, argument, .{ .emit_null_optional_fields = false }) catch return error.OutOfMemory;
    var response = try arena.alloc(u8, 4096);
    var length: usize = @intCast(call(op.ptr, op.len, request.ptr, request.len, response.ptr, response.len));
    if (length > response.len) { // an empty op writes the last answer again, and repeats nothing
        response = try arena.alloc(u8, length);
        length = @intCast(call(op.ptr, 0, request.ptr, 0, response.ptr, response.len));
    }
    const answer = std.json.parseFromSliceLeaky(Value, arena, response[0..length], .{}) catch return error.Failed;
    if (answer != .object) return error.Failed;
    if (answer.object.get("error")) |refusal| return named(refusal);
    return answer.object.get("ok") orelse error.Failed;
}

fn named(refusal: Value) HostError {
    if (refusal != .object) return error.Failed;
    if (refusal.object.get("message")) |text| {
        if (text == .string) message = text.string;
    }
    const kind = refusal.object.get("kind") orelse return error.Failed;
    if (kind != .string) return error.Failed;
    const kinds = .{
        .{ "denied", error.Denied },     .{ "conflict", error.Conflict }, .{ "quota", error.Quota },
        .{ "not_found", error.NotFound }, .{ "invalid", error.Invalid },   .{ "budget", error.Budget },
    };
    inline for (kinds) |one| {
        if (std.mem.eql(u8, kind.string, one[0])) return one[1];
    }
    return error.Failed;
}

fn string(value: ?Value) HostError![]const u8 {
    const found = value orelse return error.Failed;
    return if (found == .string) found.string else error.Failed;
}

fn number(value: ?Value) HostError!u64 {
    const found = value orelse return error.Failed;
    return if (found == .integer and found.integer >= 0) @intCast(found.integer) else error.Failed;
}

fn document(arena: Allocator, answer: Value) Error!Value {
    if (answer != .string) return answer;
    return std.json.parseFromSliceLeaky(Value, arena, answer.string, .{}) catch error.Failed;
}

/// A line in the invocation's log. What is written to stderr goes there too, as info.
pub fn log(arena: Allocator, level: Level, text: []const u8) void {
    _ = ask(arena, "log.log", .{ .level = @tagName(level), .message = text }) catch return;
}

/// The agent's configuration, as the type that it is read into.
pub fn config(comptime T: type, arena: Allocator) Error!T {
    const answer = try ask(arena, "context.config", .{});
    return std.json.parseFromValueLeaky(T, arena, answer, .{ .ignore_unknown_fields = true }) catch error.Invalid;
}

/// This invocation's name, as in its receipt and the node's logs.
pub fn invocationId(arena: Allocator) Error![]const u8 {
    return string(try ask(arena, "context.invocation_id", .{}));
}

/// What is left of this invocation's limits; memory_bytes is the limit itself.
pub fn budget(arena: Allocator) Error!Budget {
    const answer = try ask(arena, "context.budget", .{});
    return std.json.parseFromValueLeaky(Budget, arena, answer, .{ .ignore_unknown_fields = true }) catch error.Failed;
}

/// The agent's own key-value state (grant kv).
pub const kv = struct {
    /// As `expected`: write only if the key does not exist yet.
    pub const must_not_exist: u64 = 0;

    pub fn get(arena: Allocator, key: []const u8) Error!?Entry {
        const found = try ask(arena, "kv.get", .{ .key = key });
        if (found != .object) return null;
        return .{ .value = try string(found.object.get("value")), .version = try number(found.object.get("version")) };
    }

    /// Store and return the new version; `expected` is the version that must be there, null for whatever is.
    pub fn put(arena: Allocator, key: []const u8, value: []const u8, expected: ?u64) Error!u64 {
        const done = try ask(arena, "kv.put", .{ .key = key, .value = value, .expected = expected });
        return if (done == .object) number(done.object.get("version")) else error.Failed;
    }

    /// `put` of an entry that is gone after so many seconds, from 1 on.
    pub fn putFor(arena: Allocator, key: []const u8, value: []const u8, expected: ?u64, seconds: u64) Error!u64 {
        const done = try ask(arena, "kv.put", .{ .key = key, .value = value, .expected = expected, .ttl_s = seconds });
        return if (done == .object) number(done.object.get("version")) else error.Failed;
    }

    pub fn delete(arena: Allocator, key: []const u8, expected: ?u64) Error!void {
        _ = try ask(arena, "kv.delete", .{ .key = key, .expected = expected });
    }

    /// One page of keys in order; `cursor` continues after them.
    pub fn list(arena: Allocator, prefix: []const u8, cursor: ?[]const u8, limit: u32) Error!Page {
        const page = try ask(arena, "kv.list", .{ .prefix = prefix, .cursor = cursor, .limit = limit });
        return std.json.parseFromValueLeaky(Page, arena, page, .{ .ignore_unknown_fields = true }) catch error.Failed;
    }
};

/// Other agents (grant agents), inside this invocation's remaining budget.
pub const agents = struct {
    pub fn invoke(arena: Allocator, template: []const u8, input: []const u8) Error![]const u8 {
        const done = try ask(arena, "agents.invoke", .{ .template = template, .input = input });
        return if (done == .object) string(done.object.get("output")) else error.Failed;
    }
};

/// HTTP by the name of a binding in the grant http; there are no free URLs.
pub const http = struct {
    pub const Request = struct {
        method: []const u8 = "GET",
        path: []const u8,
        body: ?[]const u8 = null,
    };

    /// {"status", "headers", "body" or "body_base64"}.
    pub fn fetch(arena: Allocator, binding: []const u8, request: anytype) Error!Value {
        const text = std.json.Stringify.valueAlloc(arena, request, .{ .emit_null_optional_fields = false }) catch return error.OutOfMemory;
        return document(arena, try ask(arena, "http.fetch", .{ .binding = binding, .request = text }));
    }
};

/// A language model by the name of a binding in the grant llm.
pub const llm = struct {
    pub const Message = struct { role: []const u8 = "user", content: []const u8 };

    /// request: {"messages", "model"?, "max_tokens"?, …}. {"text", "model", "finish_reason", "usage", "cached"}.
    pub fn complete(arena: Allocator, binding: []const u8, request: anytype) Error!Value {
        const text = std.json.Stringify.valueAlloc(arena, request, .{ .emit_null_optional_fields = false }) catch return error.OutOfMemory;
        return document(arena, try ask(arena, "llm.complete", .{ .binding = binding, .request = text }));
    }

    /// `complete` in pieces; close it where not all of them are read.
    pub const Stream = struct {
        id: u64,

        /// {"delta"}, the last with "finish_reason", "usage", "model" and "cached" besides; null after the last.
        pub fn next(stream: Stream, arena: Allocator) Error!?Value {
            const piece = try document(arena, try ask(arena, "llm.next", .{ .number = stream.id }));
            return if (piece == .null) null else piece;
        }

        /// The rest is not wanted.
        pub fn close(stream: Stream, arena: Allocator) void {
            _ = ask(arena, "llm.close", .{ .number = stream.id }) catch return;
        }
    };

    pub fn open(arena: Allocator, binding: []const u8, request: anytype) Error!Stream {
        const text = std.json.Stringify.valueAlloc(arena, request, .{ .emit_null_optional_fields = false }) catch return error.OutOfMemory;
        return .{ .id = try number(try ask(arena, "llm.open", .{ .binding = binding, .request = text })) };
    }
};

/// Read the input, process it, write the output. Returns the exit code for `main`.
pub fn run(comptime process: anytype) u8 {
    var memory = std.heap.ArenaAllocator.init(std.heap.wasm_allocator);
    const arena = memory.allocator();
    const input = readAll(arena) catch return fail("the input does not fit into the memory limit");
    const output = process(arena, input) catch |failure| return fail(@errorName(failure));
    write(1, output);
    return 0;
}

fn fail(text: []const u8) u8 {
    write(2, text);
    if (message.len > 0) {
        write(2, ": ");
        write(2, message);
    }
    write(2, "\n");
    return 1;
}

fn readAll(arena: Allocator) Allocator.Error![]u8 {
    var input: std.ArrayList(u8) = .empty;
    while (true) {
        try input.ensureUnusedCapacity(arena, 64 << 10);
        const free = input.unusedCapacitySlice();
        const piece = [_]wasi.iovec_t{.{ .base = free.ptr, .len = free.len }};
        var count: usize = 0;
        if (wasi.fd_read(0, &piece, 1, &count) != .SUCCESS or count == 0) return input.items;
        input.items.len += count;
    }
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
