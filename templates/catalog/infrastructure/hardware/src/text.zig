//! Reading values out of the text that Linux tools print.
const std = @import("std");

pub const Pair = struct { key: []const u8, value: []const u8 };

pub fn trim(text: []const u8) []const u8 {
    return std.mem.trim(u8, text, " \t\r");
}

/// "key : value", split at the first colon; null for a line without one.
pub fn pair(line: []const u8) ?Pair {
    const colon = std.mem.indexOfScalar(u8, line, ':') orelse return null;
    const key = trim(line[0..colon]);
    if (key.len == 0) return null;
    return .{ .key = key, .value = trim(line[colon + 1 ..]) };
}

pub fn same(a: []const u8, b: []const u8) bool {
    return std.ascii.eqlIgnoreCase(a, b);
}

pub fn starts(text: []const u8, prefix: []const u8) bool {
    return std.mem.startsWith(u8, text, prefix);
}

pub fn has(text: []const u8, part: []const u8) bool {
    return std.mem.indexOf(u8, text, part) != null;
}

/// The number that the text begins with: decimal, or hexadecimal after 0x.
pub fn number(text: []const u8) ?u64 {
    const value = trim(text);
    if (value.len > 2 and value[0] == '0' and (value[1] == 'x' or value[1] == 'X')) {
        return std.fmt.parseInt(u64, digits(value[2..], 16), 16) catch null;
    }
    return std.fmt.parseInt(u64, digits(value, 10), 10) catch null;
}

fn digits(text: []const u8, base: u8) []const u8 {
    var end: usize = 0;
    while (end < text.len) : (end += 1) {
        _ = std.fmt.charToDigit(text[end], base) catch break;
    }
    return text[0..end];
}

/// A decimal number times `unit`, rounded, and what follows it; exact while the product fits.
pub const Scaled = struct { value: u64, rest: []const u8 };

pub fn scaled(text: []const u8, unit: u64) ?Scaled {
    const value = trim(text);
    const whole = digits(value, 10);
    if (whole.len == 0) return null;
    var total = std.math.mul(u64, std.fmt.parseInt(u64, whole, 10) catch return null, unit) catch return null;
    var rest = value[whole.len..];
    if (rest.len > 1 and rest[0] == '.') {
        const fraction = digits(rest[1..], 10);
        const used = fraction[0..@min(fraction.len, 9)];
        if (used.len > 0) {
            const numerator = std.fmt.parseInt(u64, used, 10) catch return null;
            const denominator = std.math.powi(u64, 10, used.len) catch return null;
            const product = @as(u128, numerator) * unit + denominator / 2;
            total = std.math.add(u64, total, @intCast(product / denominator)) catch return null;
        }
        rest = rest[1 + fraction.len ..];
    }
    return .{ .value = total, .rest = trim(rest) };
}

/// "96 KiB", "16 GB", "32K", "4194304": bytes. Memory and caches are counted in powers of two whatever the letters say.
pub fn bytes(text: []const u8) ?u64 {
    const plain = scaled(text, 1) orelse return null;
    const unit: u64 = switch (if (plain.rest.len > 0) std.ascii.toUpper(plain.rest[0]) else 'B') {
        'K' => 1 << 10,
        'M' => 1 << 20,
        'G' => 1 << 30,
        'T' => 1 << 40,
        'P' => 1 << 50,
        'B', '(' => 1,
        else => return null,
    };
    return (scaled(text, unit) orelse return null).value;
}

/// "3200 MHz", "2.30GHz", or a plain number in `unit`: hertz.
pub fn hertz(text: []const u8, unit: u64) ?u64 {
    const plain = scaled(text, 1) orelse return null;
    const named: u64 = if (starts(plain.rest, "GHz")) 1_000_000_000 else if (starts(plain.rest, "MHz")) 1_000_000 else unit;
    const value = (scaled(text, named) orelse return null).value;
    return if (value == 0) null else value;
}

/// What a field says; null for the many ways of firmware and tools to say nothing.
pub fn said(text: []const u8) ?[]const u8 {
    const value = trim(text);
    const nothing = [_][]const u8{
        "",           "-",              "Unknown",     "Not Specified",          "None",         "N/A",
        "No Asset",   "NO DIMM",        "Undefined",   "To Be Filled By O.E.M.", "Not Provided", "Not Available",
        "No Asset Tag", "Default string", "Not Present", "<OUT OF SPEC>",          "<BAD INDEX>",  "O.E.M.",
    };
    for (nothing) |word| {
        if (same(value, word)) return null;
    }
    return value;
}

pub fn words(arena: std.mem.Allocator, text: []const u8) ![]const []const u8 {
    var found: std.ArrayList([]const u8) = .empty;
    var rest = std.mem.tokenizeAny(u8, text, " \t\r");
    while (rest.next()) |word| try found.append(arena, word);
    return sortedUnique(arena, found.items);
}

fn before(_: void, a: []const u8, b: []const u8) bool {
    return std.mem.lessThan(u8, a, b);
}

pub fn sortedUnique(arena: std.mem.Allocator, list: []const []const u8) ![]const []const u8 {
    const ordered = try arena.dupe([]const u8, list);
    std.mem.sort([]const u8, ordered, {}, before);
    var count: usize = 0;
    for (ordered) |word| {
        if (count > 0 and std.mem.eql(u8, ordered[count - 1], word)) continue;
        ordered[count] = word;
        count += 1;
    }
    return ordered[0..count];
}

test "numbers keep their units" {
    try std.testing.expectEqual(@as(?u64, 98304), bytes("96 KiB (2 instances)"));
    try std.testing.expectEqual(@as(?u64, 1363149), bytes("1.3 MiB"));
    try std.testing.expectEqual(@as(?u64, 17179869184), bytes("16 GB"));
    try std.testing.expectEqual(@as(?u64, null), bytes("No Module Installed"));
    try std.testing.expectEqual(@as(?u64, 2300000000), hertz("2300.000", 1_000_000));
    try std.testing.expectEqual(@as(?u64, 2300000000), hertz("2.30GHz", 1));
}
