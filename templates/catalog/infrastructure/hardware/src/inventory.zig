//! What the agent answers. Every member is always there; null says that no document told.
const std = @import("std");

pub const Source = struct { format: []const u8, line: usize, lines: usize };

pub const Cache = struct {
    level: ?u64 = null,
    type: ?[]const u8 = null,
    bytes: ?u64 = null,
    instances: ?u64 = null,
    bytes_total: ?u64 = null,
};

pub const Vulnerability = struct { name: []const u8, state: []const u8, detail: ?[]const u8 };

pub const Frequency = struct {
    nominal: ?u64 = null,
    minimum: ?u64 = null,
    maximum: ?u64 = null,
    current_lowest: ?u64 = null,
    current_highest: ?u64 = null,
};

pub const Virtualisation = struct {
    extension: ?[]const u8 = null,
    hypervisor: ?[]const u8 = null,
    guest: ?bool = null,
};

pub const AddressBits = struct { physical: ?u64 = null, virtual: ?u64 = null };

pub const Cpu = struct {
    vendor: ?[]const u8 = null,
    model: ?[]const u8 = null,
    architecture: ?[]const u8 = null,
    family: ?u64 = null,
    model_number: ?u64 = null,
    stepping: ?u64 = null,
    microcode: ?[]const u8 = null,
    sockets: ?u64 = null,
    cores: ?u64 = null,
    threads: ?u64 = null,
    numa_nodes: ?u64 = null,
    byte_order: ?[]const u8 = null,
    address_bits: AddressBits = .{},
    frequency_hz: Frequency = .{},
    caches: []const Cache = &.{},
    flags: []const []const u8 = &.{},
    bugs: []const []const u8 = &.{},
    virtualisation: Virtualisation = .{},
    vulnerabilities: []const Vulnerability = &.{},
};

pub const Module = struct {
    locator: ?[]const u8 = null,
    bank: ?[]const u8 = null,
    bytes: ?u64 = null,
    type: ?[]const u8 = null,
    form_factor: ?[]const u8 = null,
    speed_mts: ?u64 = null,
    configured_speed_mts: ?u64 = null,
    manufacturer: ?[]const u8 = null,
    part_number: ?[]const u8 = null,
    serial_number: ?[]const u8 = null,
    rank: ?u64 = null,
    ecc: ?bool = null,
};

pub const Memory = struct {
    bytes_total: ?u64 = null,
    bytes_maximum: ?u64 = null,
    slots: ?u64 = null,
    slots_used: ?u64 = null,
    error_correction: ?[]const u8 = null,
    modules: []const Module = &.{},
};

pub const Bios = struct {
    vendor: ?[]const u8 = null,
    version: ?[]const u8 = null,
    release_date: ?[]const u8 = null,
    rom_bytes: ?u64 = null,
    revision: ?[]const u8 = null,
};

pub const Product = struct {
    manufacturer: ?[]const u8 = null,
    product: ?[]const u8 = null,
    version: ?[]const u8 = null,
    serial_number: ?[]const u8 = null,
    uuid: ?[]const u8 = null,
    family: ?[]const u8 = null,
};

pub const Chassis = struct {
    manufacturer: ?[]const u8 = null,
    type: ?[]const u8 = null,
    version: ?[]const u8 = null,
    serial_number: ?[]const u8 = null,
};

pub const Warning = struct { code: []const u8, message: []const u8 };

pub const Inventory = struct {
    sources: []const Source = &.{},
    cpu: ?Cpu = null,
    memory: ?Memory = null,
    bios: ?Bios = null,
    system: ?Product = null,
    board: ?Product = null,
    chassis: ?Chassis = null,
    warnings: []const Warning = &.{},
};
