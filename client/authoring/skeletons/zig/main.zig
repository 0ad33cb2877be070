//! @NAME@: counts words. An agent in Zig is a command: `af.run` reads its input from stdin and writes its output to stdout.
const std = @import("std");
const af = @import("agentfactory");

const Config = struct { words_max: usize = 100 };

fn process(arena: std.mem.Allocator, input: []const u8) ![]const u8 {
    const config = try af.config(Config, arena);
    var words: usize = 0;
    var each = std.mem.tokenizeAny(u8, input, " \t\r\n");
    while (each.next() != null and words < config.words_max) words += 1;
    af.log(arena, .info, try std.fmt.allocPrint(arena, "counted words={d}", .{words}));
    return std.fmt.allocPrint(arena, "{{\"words\":{d}}}", .{words});
}

pub fn main() u8 {
    return af.run(process);
}
