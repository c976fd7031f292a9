(* SPDX-License-Identifier: LGPL-2.1-or-later *)
(* The stack overflows, in functions with frames of several sizes, and the runtime makes an exception of it: its handler
   of SIGSEGV looks at the address, the stack pointer and the program counter. *)
let rec small n = 1 + small (n + 1)

let rec large a b c d e f g = 1 + large b c d e f g (a + 1) + a + b + c + d + e + f + g

let rec deep f n = if n = 0 then f () else 1 + deep f (n - 1)

let overflow name f =
  match f () with
  | _ -> Printf.printf "%s: returned\n" name
  | exception Stack_overflow -> Printf.printf "%s: overflow\n" name

let () =
  for i = 1 to 20 do
    overflow "small" (fun () -> deep (fun () -> small 0) i);
    overflow "large" (fun () -> deep (fun () -> large 1 2 3 4 5 6 7) i)
  done
