;; Keeps the last note that it is told, across restarts and updates: `keep` answers the one before.
;; It tells whoever listens to notes.kept. The bus comes as functions of `crucible`; texts are pieces of memory.
(module
  (import "crucible" "bus_open" (func $open (param i32 i32 i32) (result i32)))
  (import "crucible" "bus_ready" (func $ready (result i32)))
  (import "crucible" "bus_next" (func $next (param i32) (result i32)))
  (import "crucible" "bus_take" (func $take (param i32 i32 i32) (result i32)))
  (import "crucible" "bus_answer" (func $answer (param i32 i32) (result i32)))
  (import "crucible" "bus_fail" (func $fail (param i32 i32) (result i32)))
  (import "crucible" "bus_publish" (func $publish (param i32 i32 i32 i32) (result i32)))
  (import "crucible" "log_write" (func $log (param i32 i32 i32 i32 i32) (result i32)))
  (import "crucible" "store_get" (func $get (param i32 i32) (result i32)))
  (import "crucible" "store_put" (func $put (param i32 i32 i32 i32 i64) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)

  ;; 0: what fd_write wants. 8192 and 24576: the note and the one before, 16 KiB at most each.
  (data (i32.const 16) "keep")
  (data (i32.const 32) "last")
  (data (i32.const 48) "notes.kept")
  (data (i32.const 64) "last-note is up\0a")
  (data (i32.const 96) "the bus is not there\0a")
  (data (i32.const 128) "null")
  (data (i32.const 144) "asked to stop")

  (func $print (param $text i32) (param $length i32)
    (i32.store (i32.const 0) (local.get $text))
    (i32.store (i32.const 4) (local.get $length))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))

  ;; Copies the payload of what came last to a place, and returns its length, cut off at 16 KiB.
  (func $payload (param $at i32) (result i32)
    (local $length i32)
    (local.set $length (call $take (i32.const 0) (local.get $at) (i32.const 16384)))
    (select (local.get $length) (i32.const 16384) (i32.lt_u (local.get $length) (i32.const 16384))))

  (func $keep
    (local $length i32) (local $before i32)
    (local.set $length (call $payload (i32.const 8192)))
    (local.set $before (i32.const 4)) ;; "null", in JSON
    (memory.copy (i32.const 24576) (i32.const 128) (i32.const 4))
    (if (i32.eqz (call $get (i32.const 32) (i32.const 4)))
      (then (local.set $before (call $payload (i32.const 24576)))))
    (if (i32.lt_s
          (call $put (i32.const 32) (i32.const 4) (i32.const 8192) (local.get $length) (i64.const -1))
          (i32.const 0))
      (then ;; why is in the payload
        (drop (call $fail (i32.const 24576) (call $payload (i32.const 24576))))
        (return)))
    (drop (call $publish (i32.const 48) (i32.const 10) (i32.const 8192) (local.get $length)))
    (drop (call $answer (i32.const 24576) (local.get $before))))

  (func (export "_start") (local $what i32)
    ;; 2: SIGTERM is heard, and the program ends by itself.
    (if (i32.lt_s (call $open (i32.const 16) (i32.const 4) (i32.const 2)) (i32.const 0))
      (then
        (call $print (i32.const 96) (i32.const 21))
        (call $proc_exit (i32.const 1))))
    (drop (call $ready))
    (call $print (i32.const 64) (i32.const 16))
    (loop $forever
      (local.set $what (call $next (i32.const -1)))
      (if (i32.eq (local.get $what) (i32.const 1))
        (then (call $keep)))
      (br_if $forever (i32.ne (local.get $what) (i32.const 4))))
    (drop (call $log (i32.const 1) (i32.const 144) (i32.const 13) (i32.const 0) (i32.const 0)))))
