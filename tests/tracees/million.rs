// A million numbers in a vector, a few of which are others each turn, and a count of turns: million
use std::hint::black_box;
use std::time::Duration;

static mut TURNS: u64 = 0;

#[inline(never)]
fn turn(numbers: &mut Vec<u64>, turns: u64) -> u64 {
    let at = (turns % 64) as usize;
    numbers[at] += 1;
    let sum: u64 = numbers[..64].iter().sum();
    black_box(&numbers);
    std::thread::sleep(Duration::from_millis(2));
    sum
}

fn main() {
    let mut numbers: Vec<u64> = (0..1_000_000).collect();
    let begun: u64 = numbers[..64].iter().sum();
    println!("ready");
    for turns in 1.. {
        // What is read here belongs to the turn before, whatever was looked at meanwhile.
        let sum = turn(&mut numbers, turns);
        if sum != begun + turns {
            println!("FAIL {sum} is not {}", begun + turns);
            std::process::abort();
        }
        unsafe { TURNS = black_box(turns) };
        black_box(&numbers);
    }
}
