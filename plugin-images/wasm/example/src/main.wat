;; Counts prime numbers, as many candidates every two seconds as the first argument says.
;; A WASI command that stands by itself. It has nothing to do when asked to stop: the host ends it.
;; Mostly such a program is compiled: cargo build --target wasm32-wasip1, or clang --target=wasm32-wasi.
(module
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $args_sizes_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args_get (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll_oneoff (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $proc_exit (param i32)))
  (memory (export "memory") 1)

  ;; 0: results of calls, 16: where the arguments are, 64: what to wait for, 256: the arguments' text.
  (data (i32.const 4096) " primes from ")
  (data (i32.const 4112) " to ")
  (data (i32.const 4120) "\0a")
  (data (i32.const 4128) "usage: main.wat HOW-MANY\0a")

  (func $print (param $text i32) (param $length i32)
    (i32.store (i32.const 0) (local.get $text))
    (i32.store (i32.const 4) (local.get $length))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))

  ;; Prints a number: its digits are written from the right, and end before 4224.
  (func $print_number (param $number i32)
    (local $at i32)
    (local.set $at (i32.const 4224))
    (loop $more
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at)
        (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10))))
      (local.set $number (i32.div_u (local.get $number) (i32.const 10)))
      (br_if $more (local.get $number)))
    (call $print (local.get $at) (i32.sub (i32.const 4224) (local.get $at))))

  ;; Reads the digits at an address, up to the first that is none.
  (func $number_at (param $at i32) (result i32)
    (local $number i32) (local $digit i32)
    (block $done
      (loop $more
        (local.set $digit (i32.sub (i32.load8_u (local.get $at)) (i32.const 48)))
        (br_if $done (i32.gt_u (local.get $digit) (i32.const 9)))
        (local.set $number (i32.add (i32.mul (local.get $number) (i32.const 10)) (local.get $digit)))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br $more)))
    (local.get $number))

  (func $is_prime (param $number i32) (result i32)
    (local $divisor i32)
    (local.set $divisor (i32.const 2))
    (loop $more
      (if (i32.gt_u (i32.mul (local.get $divisor) (local.get $divisor)) (local.get $number))
        (then (return (i32.const 1))))
      (if (i32.eqz (i32.rem_u (local.get $number) (local.get $divisor)))
        (then (return (i32.const 0))))
      (local.set $divisor (i32.add (local.get $divisor) (i32.const 1)))
      (br $more))
    (unreachable))

  (func $wait (param $nanoseconds i64)
    (i32.store (i32.const 80) (i32.const 1)) ;; the clock that never goes back
    (i64.store (i32.const 88) (local.get $nanoseconds))
    (drop (call $poll_oneoff (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 8))))

  (func $primes (param $from i32) (param $to i32) (result i32)
    (local $count i32)
    (loop $more
      (local.set $count (i32.add (local.get $count) (call $is_prime (local.get $from))))
      (local.set $from (i32.add (local.get $from) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $from) (local.get $to))))
    (local.get $count))

  (func (export "_start")
    (local $many i32) (local $from i32)
    (drop (call $args_sizes_get (i32.const 0) (i32.const 4)))
    (if (i32.or (i32.ne (i32.load (i32.const 0)) (i32.const 2))
                (i32.gt_u (i32.load (i32.const 4)) (i32.const 1024)))
      (then
        (call $print (i32.const 4128) (i32.const 25))
        (call $proc_exit (i32.const 2))))
    (drop (call $args_get (i32.const 16) (i32.const 256)))
    (local.set $many (call $number_at (i32.load (i32.const 20))))
    (local.set $from (i32.const 2))
    (loop $more
      (call $print_number (call $primes (local.get $from) (i32.add (local.get $from) (local.get $many))))
      (call $print (i32.const 4096) (i32.const 13))
      (call $print_number (local.get $from))
      (call $print (i32.const 4112) (i32.const 4))
      (local.set $from (i32.add (local.get $from) (local.get $many)))
      (call $print_number (local.get $from))
      (call $print (i32.const 4120) (i32.const 1))
      (call $wait (i64.const 2000000000))
      (br_if $more (i32.lt_u (local.get $from) (i32.const 1000000000))))))
