//! Asks everything that the grants of its template open; what it returns is compared in test_sdk_outside.py.
const std = @import("std");
const af = @import("agentfactory");

const Message = af.llm.Message;

fn kind(result: anytype) []const u8 {
    _ = result catch |failure| return switch (failure) {
        error.Denied => "denied",
        error.Conflict => "conflict",
        error.Failed => "failed",
        else => "other",
    };
    return "done";
}

fn process(arena: std.mem.Allocator, input: []const u8) ![]const u8 {
    const body = try std.json.Stringify.valueAlloc(arena, .{ .about = input }, .{});
    const posted = try af.http.fetch(arena, "api", .{
        .method = "POST",
        .path = "/v1/works",
        .query = .{ .about = input },
        .body = body,
    });
    const missing = try af.http.fetch(arena, "api", .{ .path = "/v1/missing", .method = "GET" });
    const asked = try std.fmt.allocPrint(arena, "about {s}", .{input});
    const complete = try af.llm.complete(arena, "default", .{ .messages = [_]Message{.{ .content = asked }} });
    const stream = try af.llm.open(arena, "default", .{ .messages = [_]Message{.{ .content = "one two three" }} });
    defer stream.close(arena);
    var text: std.ArrayList(u8) = .empty;
    var finish: []const u8 = "";
    var pieces: usize = 0;
    while (try stream.next(arena)) |piece| {
        try text.appendSlice(arena, piece.object.get("delta").?.string);
        if (piece.object.get("finish_reason")) |reason| finish = reason.string;
        pieces += 1;
    }
    const forbidden = [_]Message{.{ .content = "x" }};
    const refused = kind(af.llm.complete(arena, "default", .{ .model = "forbidden", .messages = forbidden }));
    _ = try af.kv.putFor(arena, "kept", input, null, 60);
    const kept = (try af.kv.get(arena, "kept")).?.value;
    return std.json.Stringify.valueAlloc(arena, .{
        .posted = try std.json.parseFromSliceLeaky(std.json.Value, arena, posted.object.get("body").?.string, .{}),
        .missing = missing.object.get("status").?.integer,
        .complete = complete.object.get("text").?.string,
        .tokens = complete.object.get("usage").?.object.get("output_tokens").?.integer,
        .pieces = pieces > 0,
        .stream = text.items,
        .finish = finish,
        .refused = refused,
        .denied = kind(af.http.fetch(arena, "api", .{ .path = "/v2", .method = "GET" })),
        .kept = kept,
        .conflict = kind(af.kv.putFor(arena, "kept", "x", af.kv.must_not_exist, 1)),
    }, .{});
}

pub fn main() u8 {
    return af.run(process);
}
