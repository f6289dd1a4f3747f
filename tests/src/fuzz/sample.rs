//! A process with one of everything a record can hold.

use libsls::record::{
    Advice, AltStack, Attributes, Backing, Blocked, Capabilities, Conduct, Content, Ended, Epoll,
    File, FileKind, Filter, Filters, IntervalTimer, Layout, Lock, LockKind, Mapping, Name, Perms,
    PosixTimer, Process, Queued, Registers, Renamed, Rseq, Scheduling, Segment, SigAction, SigInfo,
    Signals, Socket, SocketOption, Thread, Unnamed, Unvouched, Watch,
};

const MAPPED: u64 = 0x40_0000;
const PAGE: u64 = 4096;

/// A child of the process that has ended.
pub fn ended() -> Ended {
    Ended {
        pid: 8,
        ppid: 7,
        pgid: 7,
        sid: 7,
        comm: "child".into(),
        status: 9,
        exit_signal: 17,
    }
}

/// A pipe that was made again.
pub fn renamed() -> Renamed {
    let pipe = |inode| Name {
        target: format!("pipe:[{inode}]"),
        dev: 0,
        inode,
    };
    Renamed {
        old: pipe(5),
        new: pipe(6),
    }
}

/// The process.
pub fn process() -> Process {
    Process {
        segments: vec![Segment {
            id: 1,
            key: 2,
            size: 3,
            mode: 0o600,
            uid: 0,
            gid: 0,
            removed: true,
        }],
        filters: vec![Filters {
            tids: vec![7, 8],
            programs: vec![Filter {
                log: true,
                code: vec![6, 0, 0, 0, 0, 0, 0xff, 0x7f],
            }],
        }],
        pid: 7,
        ppid: 1,
        pgid: 7,
        sid: 7,
        start_ticks: 99,
        former: vec![98],
        guards: vec![(0x7000, 0x9000)],
        comm: "sample".into(),
        exe: "/bin/sample".into(),
        cwd: "/".into(),
        root: "/".into(),
        umask: 0o22,
        brk: 0x90_1000,
        layout: Layout {
            start_code: MAPPED,
            end_code: MAPPED + PAGE,
            start_brk: 0x90_0000,
            ..Layout::default()
        },
        terminal: Some(libsls::record::Controlling {
            path: "/dev/pts/3".into(),
            foreground: 7,
        }),
        conduct: Some(Conduct {
            dumpable: 1,
            subreaper: true,
            securebits: 1,
            no_huge_pages: false,
        }),
        attributes: Attributes {
            uids: [1; 4],
            gids: [2; 4],
            groups: vec![3, 4],
            capabilities: Capabilities {
                bounding: 7,
                ..Capabilities::default()
            },
            no_new_privs: true,
            seccomp: 2,
            limits: vec![(1024, 4096); 16],
            oom_score_adj: -5,
            personality: 8,
        },
        space: 0,
        auxv: vec![(6, PAGE), (9, MAPPED)],
        threads: vec![thread()],
        mappings: mappings(),
        files: files(),
        signals: Signals {
            actions: vec![SigAction {
                signo: 10,
                handler: MAPPED,
                flags: 0x0400_0000,
                restorer: MAPPED,
                mask: 0,
            }],
            ignored: 1,
            caught: 1 << 9,
            pending: vec![SigInfo(vec![10; 128])],
            as_of_ns: 5,
        },
        itimers: vec![IntervalTimer {
            which: 0,
            value_ns: 1,
            interval_ns: 2,
        }],
        timers: vec![PosixTimer {
            id: 0,
            clock: 1,
            notify: 0,
            signo: 14,
            value: 0,
            tid: 0,
            value_ns: 1,
            interval_ns: 0,
        }],
        unvouched: vec![Unvouched {
            start: MAPPED,
            end: MAPPED + PAGE,
            reason: "shared".into(),
        }],
        stopped: false,
        exit_signal: 17,
        outside: 0,
    }
}

fn thread() -> Thread {
    Thread {
        tid: 7,
        name: "sample".into(),
        regs: Registers {
            rip: MAPPED + 16,
            rsp: 0x7fff_0000,
            ..Registers::default()
        },
        xstate: vec![3; 64],
        sigmask: 1,
        pending: vec![SigInfo(vec![12; 128])],
        altstack: Some(AltStack::default()),
        rseq: Some(Rseq {
            addr: 0x7fff_0000,
            size: 32,
            signature: 7,
        }),
        robust_list: (0x7fff_0100, 24),
        clear_tid: Some(0x7fff_0200),
        death_signal: Some(9),
        timer_slack_ns: Some(50_000),
        blocked: Some(Blocked {
            nr: 232,
            remaining_ns: Some(5),
        }),
        scheduling: Scheduling {
            policy: 1,
            priority: 9,
            affinity: vec![3; 8],
            ..Scheduling::default()
        },
    }
}

fn mappings() -> Vec<Mapping> {
    let backings = [
        (Backing::File, "/bin/sample"),
        (Backing::Anonymous, "[heap]"),
        (Backing::Shared { space: 1 }, "/dev/shm/x"),
        (Backing::Kernel, "[vvar]"),
    ];
    (0..)
        .zip(backings)
        .map(|(n, (backing, path))| Mapping {
            start: MAPPED + n * 16 * PAGE,
            end: MAPPED + (n * 16 + 4) * PAGE,
            perms: Perms {
                read: true,
                write: n > 0,
                exec: n == 0,
                shared: n == 2,
            },
            offset: 0,
            dev: 1,
            inode: n,
            path: path.into(),
            backing,
            file_mtime_ns: 1,
            grows_down: false,
            locked: false,
            advice: vec![Advice::NotForked],
            key: 3,
        })
        .collect()
}

fn files() -> Vec<File> {
    let kinds = vec![
        FileKind::Regular {
            size: 1,
            mtime_ns: 2,
        },
        FileKind::Directory,
        FileKind::Pipe {
            content: Queued::Bytes(vec![1, 2, 3]),
            capacity: 65536,
            packets: vec![1, 2],
        },
        FileKind::Pipe {
            content: Queued::Unread("too long".into()),
            capacity: 0,
            packets: Vec::new(),
        },
        FileKind::Socket {
            description: "tcp".into(),
            listening: true,
            state: Some(Box::new(Socket {
                family: 2,
                kind: 1,
                protocol: 6,
                local: vec![2; 16],
                listens: true,
                backlog: Some(511),
                options: vec![SocketOption {
                    level: 1,
                    name: 2,
                    value: vec![1, 0, 0, 0],
                }],
                ..Socket::default()
            })),
        },
        FileKind::EventFd { count: 3 },
        FileKind::TimerFd {
            clock: 1,
            ticks: 0,
            settime_flags: 0,
            value_ns: 9,
            interval_ns: 9,
        },
        FileKind::SignalFd { mask: 1 },
        FileKind::Epoll {
            members: vec![Epoll {
                fd: 3,
                events: 1,
                data: 3,
            }],
        },
        FileKind::Inotify {
            watches: vec![Watch {
                number: 1,
                dev: 2,
                inode: 3,
                mask: 4,
                path: Some("/watched".into()),
            }],
            waiting: 16,
        },
        FileKind::Memory { size: 4096 },
        FileKind::MessageQueue(libsls::record::MessageQueue {
            capacity: 10,
            longest: 8192,
            waiting: 1,
            mode: 0o600,
            uid: 0,
            gid: 0,
        }),
        FileKind::Device {
            terminal: Some(Box::new(libsls::record::Terminal {
                master: Some(3),
                modes: vec![0; 44],
                window: [24, 80, 0, 0],
                packets: false,
                waiting: 0,
            })),
        },
        FileKind::Other,
    ];
    (0..)
        .zip(kinds)
        .map(|(fd, kind)| File {
            fd,
            target: format!("/x/{fd}"),
            flags: 2,
            offset: 0,
            dev: 1,
            inode: 1,
            kind,
            shares: (fd == 1).then_some(0),
            shared_with: (fd == 4).then_some((1, 4)),
            unnamed: Some(Box::new(Unnamed {
                size: 1,
                mode: 0o600,
                uid: 0,
                gid: 0,
                seals: 1,
                content: Content::Space(2),
            })),
            locks: vec![Lock {
                kind: LockKind::Posix,
                write: true,
                start: 10,
                end: Some(19),
            }],
        })
        .collect()
}
