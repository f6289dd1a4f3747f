//! What redis must hold: each command sets the next key in turn to the number of the command, so the
//! largest number found tells all the others.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

const KEYS: u64 = 1000;
/// Commands sent at once.
const BATCH: u64 = 200;
const STRIDE: u64 = 387;

/// The only client that writes.
pub struct Store {
    port: u16,
    connection: Option<BufReader<TcpStream>>,
    /// Commands done.
    done: u64,
    /// What had been done at checkpoints that were asked for.
    known: BTreeMap<u64, u64>,
}

impl Store {
    pub fn new(port: u16) -> Self {
        Self {
            port,
            connection: None,
            done: 0,
            known: BTreeMap::new(),
        }
    }

    fn connection(&mut self) -> &mut BufReader<TcpStream> {
        let port = self.port;
        self.connection.get_or_insert_with(|| {
            let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let patience = Some(Duration::from_secs(20));
            stream.set_read_timeout(patience).unwrap();
            BufReader::new(stream)
        })
    }

    /// Closes the connection: sockets do not go back with a process.
    pub fn leave(&mut self) {
        self.connection = None;
    }

    pub fn fill(&mut self) {
        while self.done < 2 * KEYS {
            self.work();
        }
    }

    /// Does some more commands, one after another.
    pub fn work(&mut self) {
        let first = self.done + 1;
        let mut commands = String::new();
        for n in first..first + BATCH {
            commands += &format!("SET key:{} {n}\r\n", n * STRIDE % KEYS);
        }
        let connection = self.connection();
        connection.get_mut().write_all(commands.as_bytes()).unwrap();
        for n in first..first + BATCH {
            let mut line = String::new();
            connection.read_line(&mut line).unwrap();
            assert_eq!(line, "+OK\r\n", "command {n}");
        }
        self.done += BATCH;
    }

    pub fn remember(&mut self, epoch: u64) {
        self.known.insert(epoch, self.done);
    }

    /// Is all that redis holds of one moment, and of the right one where that is known? Goes on
    /// from there.
    pub fn judge(&mut self, epoch: Option<u64>) -> Result<(), String> {
        let values = self.all();
        let newest = values.iter().copied().max().unwrap_or(0);
        let due = epoch.and_then(|e| self.known.get(&e)).copied();
        self.done = newest;
        if due.is_some_and(|due| due != newest) {
            return Err(format!("{due:?} commands were done, {newest} it is"));
        }
        // Commands in a row, each to another key: the last KEYS of them are what is there.
        for n in (newest + 1).saturating_sub(KEYS).max(1)..=newest {
            let key = usize::try_from(n * STRIDE % KEYS).unwrap();
            if values[key] != n {
                return Err(format!("key:{key} is {} and should be {n}", values[key]));
            }
        }
        Ok(())
    }

    fn all(&mut self) -> Vec<u64> {
        let keys: Vec<String> = (0..KEYS).map(|k| format!("key:{k}")).collect();
        let command = format!("MGET {}\r\n", keys.join(" "));
        let connection = self.connection();
        connection.get_mut().write_all(command.as_bytes()).unwrap();
        let line = |connection: &mut BufReader<TcpStream>| {
            let mut line = String::new();
            connection.read_line(&mut line).unwrap();
            line[1..].trim_end().parse::<i64>().unwrap()
        };
        let count = line(connection);
        assert_eq!(count, i64::try_from(KEYS).unwrap());
        let value = |connection: &mut BufReader<TcpStream>| {
            let length = usize::try_from(line(connection)).unwrap_or(0);
            let mut text = vec![0; length + 2];
            connection.read_exact(&mut text).unwrap();
            let text = String::from_utf8(text).unwrap();
            text.trim_end().parse().unwrap()
        };
        (0..count).map(|_| value(connection)).collect()
    }
}
