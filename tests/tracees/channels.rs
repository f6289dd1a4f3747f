// Threads that pass numbered messages through channels: none is lost, doubled or out of order.
use std::collections::HashMap;
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

#[derive(Debug, Clone)]
struct Message {
    from: usize,
    number: u64,
    text: String,
}

static RECEIVED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

fn send(from: usize, to: SyncSender<Message>) {
    for number in 0.. {
        let text = format!("{from}:{number}");
        if to.send(Message { from, number, text }).is_err() {
            return;
        }
        if number % 50 == 0 {
            thread::sleep(Duration::from_micros(300));
        }
    }
}

fn receive(messages: Receiver<Message>, seen: Arc<Mutex<HashMap<usize, u64>>>) {
    // A minute's patience would be over at once after a rewind by a minute: clocks are not rewound.
    while let Ok(message) = messages.recv_timeout(Duration::from_secs(3600)) {
        let mut seen = seen.lock().unwrap();
        let next = seen.entry(message.from).or_insert(0);
        let text = format!("{}:{}", message.from, message.number);
        if *next != message.number || text != message.text {
            println!("FAIL expected {next}, got {message:?}");
            std::process::abort();
        }
        *next += 1;
        RECEIVED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    println!("FAIL nothing came");
    std::process::abort();
}

fn main() {
    let seen = Arc::new(Mutex::new(HashMap::new()));
    let (to, messages) = sync_channel(64);
    for from in 0..4 {
        let to = to.clone();
        thread::Builder::new().name(format!("sender-{from}")).spawn(move || send(from, to)).unwrap();
    }
    println!("ready");
    receive(messages, seen);
}
