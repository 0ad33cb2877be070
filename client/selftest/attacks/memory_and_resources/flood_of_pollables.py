"""Handles to timers without end, none given back.

Source: CWE-772. Expected: a typed failure at the limit of handles, or at that of fuel, time or calls.
"""

from client.selftest.attack import Guest, fails, once

_WAT = """(component
  (import "wasi:io/poll@0.2.0" (instance $poll (export "pollable" (type (sub resource)))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock (export "pollable" (type $q (eq $pollable)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $q))))))
  (core module $memory-module (memory (export "m") 2) (global $next (mut i32) (i32.const 32768))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (global.set $next (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
      (global.get $next) (global.set $next (i32.add (global.get $next) (local.get 3)))))
  (core instance $memory (instantiate $memory-module))
  (core func $subscribe (canon lower (func $clock "subscribe-duration")))
  (core module $main-module (import "h" "subscribe" (func $subscribe (param i64) (result i32)))
    (func (export "process") (param i32 i32) (result i32)
      (loop $again (drop (call $subscribe (i64.const 1000000000))) (br $again)) (i32.const 0)))
  (core instance $main (instantiate $main-module
    (with "h" (instance (export "subscribe" (func $subscribe))))))
  (func (export "process") (param "input" string) (result (result string (error string)))
    (canon lift (core func $main "process")
      (memory (core memory $memory "m")) (realloc (core func $memory "realloc")))))"""
ATTACK = once(
    Guest(wat=_WAT, abi="component", limits={"wall_ms": 1_000}),
    expect=fails("TRAP", "FUEL", "DEADLINE", "HOST_CALLS", "MEMORY"),
)
