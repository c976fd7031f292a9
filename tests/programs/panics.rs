// SPDX-License-Identifier: LGPL-2.1-or-later
// Panics that unwind through functions of Rust, are caught, thrown on, thrown by destructors and by threads; backtraces
// out of the middle. Does the same each time, and must not know of libpatch. Prints what was caught and dropped, each
// backtrace by names, and how many calls of descend() and pass_on() panics of the main thread have left.
//
// panics ROUNDS [backtraces] [threads]
use std::backtrace::Backtrace;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::panic::{self, AssertUnwindSafe};

thread_local! {
    static DROPPED: Cell<u64> = const { Cell::new(0) };
    static LEFT: Cell<u64> = const { Cell::new(0) };
}

fn left(frames: u64) {
    LEFT.with(|l| l.set(l.get() + frames));
}

struct Counted(u32);

impl Drop for Counted {
    #[inline(never)]
    fn drop(&mut self) {
        DROPPED.with(|d| d.set(d.get().wrapping_mul(31).wrapping_add(u64::from(self.0))));
    }
}

/// A destructor that panics, and catches that, while a panic is under way or not.
struct Noisy;

impl Drop for Noisy {
    #[inline(never)]
    fn drop(&mut self) {
        let caught = panic::catch_unwind(|| {
            left(1);
            descend(0, 0)
        });
        assert!(caught.is_err());
    }
}

#[inline(never)]
#[no_mangle]
fn descend(depth: u32, kind: u32) -> u64 {
    let here = Counted(depth);
    if depth == 0 {
        match kind {
            0 => panic!("at the bottom"),
            1 => std::hint::black_box(&[1u64, 2][..])[std::hint::black_box(7)],
            2 => "x".parse::<u64>().unwrap(),
            3 => std::panic::panic_any(std::hint::black_box(42u32)),
            _ => u64::from(here.0) + 1,
        }
    } else {
        let _noisy = if kind == 2 && depth == 2 { Some(Noisy) } else { None };
        1 + descend(depth - 1, kind)
    }
}

#[inline(never)]
#[no_mangle]
fn pass_on(depth: u32, kind: u32) -> u64 {
    match panic::catch_unwind(|| descend(depth, kind)) {
        Ok(value) => value,
        Err(payload) => {
            left(1);
            panic::resume_unwind(payload)
        }
    }
}

fn describe(payload: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_string()
    } else if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else {
        format!("{:?}", payload.downcast_ref::<u32>())
    }
}

/// Of functions, without addresses and lines.
fn names(backtrace: &Backtrace) -> Vec<String> {
    backtrace
        .to_string()
        .lines()
        .filter(|line| !line.trim_start().starts_with("at "))
        .map(|line| line.trim().to_string())
        .collect()
}

#[inline(never)]
#[no_mangle]
fn look_back(depth: u32) -> Vec<String> {
    if depth > 0 {
        let found = look_back(depth - 1);
        return std::hint::black_box(found);
    }
    names(&Backtrace::force_capture())
}

fn round(number: u32) {
    let mut caught = BTreeMap::new();
    for kind in 0..5 {
        let depth = (number + kind) % 5;
        let result = panic::catch_unwind(AssertUnwindSafe(|| {
            if kind < 4 {
                left(u64::from(depth) + 1);
            }
            if number % 2 == 0 {
                pass_on(depth, kind)
            } else {
                descend(depth, kind)
            }
        }));
        let text = match result {
            Ok(value) => format!("value {value}"),
            Err(payload) => describe(&*payload),
        };
        *caught.entry(text).or_insert(0) += depth;
    }
    println!("{number}: {caught:?}");
}

fn main() {
    let rounds = std::env::args().nth(1).map_or(3, |text| text.parse().unwrap());
    let backtraces = std::env::args().any(|argument| argument == "backtraces");
    let threads = std::env::args().any(|argument| argument == "threads");
    panic::set_hook(Box::new(move |info| {
        if std::thread::current().name() != Some("main") {
            return;
        }
        println!("panic at line {}", info.location().unwrap().line());
        if backtraces {
            for line in names(&Backtrace::force_capture()) {
                println!("{line}");
            }
        }
    }));
    for number in 0..rounds {
        round(number);
    }
    if backtraces {
        for line in look_back(3) {
            println!("{line}");
        }
    }
    if threads {
        let all: Vec<_> = (0..4)
            .map(|n| {
                std::thread::spawn(move || {
                    for number in 0..20 {
                        let _ = panic::catch_unwind(|| pass_on(number % 6, 3));
                    }
                    descend(n, 0)
                })
            })
            .collect();
        for thread in all {
            println!("thread: {}", describe(&*thread.join().unwrap_err()));
        }
    }
    println!("dropped {:x}", DROPPED.with(Cell::get));
    println!("left {}", LEFT.with(Cell::get));
}
