//! FUSE: the only file that knows the crate fuser.
//!
//! Requests come on fuser's thread, and are answered, one after the other, by a thread of its own that
//! has the tree: views of checkpoints stay on one thread.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, ReplyOpen,
    Request, Session, SessionUnmounter,
};
use nix::unistd::{getgid, getuid};

use crate::histories::{Entry, Histories, Node, Shape, Trouble};
use crate::probes::{self, Operation};

/// How long the kernel may take what it was told for true. A history grows all the time.
const TRUE_FOR: Duration = Duration::from_millis(100);
const BLOCK: u64 = 512;

type Job = Box<dyn FnOnce(&mut Histories) + Send>;

/// A mount that answers once it runs.
pub struct Mounted {
    session: Session<Adapter>,
    jobs: Receiver<Job>,
}

impl Mounted {
    /// Mounts at `folder`, read-only, for the user who asks.
    ///
    /// # Errors
    /// Those of mount(2), or of fusermount3 for a plain user.
    pub fn at(folder: &Path) -> io::Result<Self> {
        let (send, jobs) = channel();
        let mut config = Config::default();
        config.mount_options.extend([
            MountOption::RO,
            MountOption::NoDev,
            MountOption::NoSuid,
            MountOption::NoExec,
            MountOption::FSName("sls".into()),
            MountOption::Subtype("slfs".into()),
        ]);
        let session = Session::new(Adapter { jobs: send }, folder, &config)?;
        Ok(Self { session, jobs })
    }

    /// What ends the mount from another thread.
    pub fn unmounter(&mut self) -> SessionUnmounter {
        self.session.unmount_callable()
    }

    /// Answers until the mount ends.
    ///
    /// # Errors
    /// The kernel broke the conversation off.
    pub fn run(self, histories: &mut Histories) -> io::Result<()> {
        let Self { session, jobs } = self;
        let background = session.spawn()?;
        for job in jobs {
            job(histories);
        }
        background.join()
    }
}

struct Adapter {
    jobs: Sender<Job>,
}

impl Adapter {
    fn ask(&self, operation: Operation, job: impl FnOnce(&mut Histories) + Send + 'static) {
        let job = move |tree: &mut Histories| {
            probes::begun(operation);
            job(tree);
            probes::done(operation);
        };
        // Nobody answers once the mount has ended: dropping the reply tells the kernel EIO.
        let _ = self.jobs.send(Box::new(job));
    }
}

fn errno(trouble: Trouble) -> Errno {
    match trouble {
        Trouble::Absent => Errno::ENOENT,
        Trouble::Unreadable => Errno::EIO,
        Trouble::Silent => Errno::ENOTCONN,
    }
}

fn kind(shape: Shape) -> FileType {
    match shape {
        Shape::Folder => FileType::Directory,
        Shape::Link(_) => FileType::Symlink,
        Shape::File(..) => FileType::RegularFile,
    }
}

fn attributes(number: u64, shape: Shape) -> FileAttr {
    let (size, room) = match shape {
        Shape::Folder => (0, 0),
        Shape::Link(epoch) => (format!("@{epoch}").len() as u64, 0),
        Shape::File(size, room) => (size, room),
    };
    FileAttr {
        ino: INodeNo(number),
        size,
        blocks: room.div_ceil(BLOCK),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: kind(shape),
        perm: match shape {
            Shape::Folder => 0o500,
            Shape::Link(_) => 0o777,
            Shape::File(..) => 0o400,
        },
        nlink: 1,
        uid: getuid().as_raw(),
        gid: getgid().as_raw(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// What a listing says before anybody asks for more.
fn listed_kind(node: &Node) -> FileType {
    match node {
        Node::File(..) => FileType::RegularFile,
        Node::Link(..) => FileType::Symlink,
        _ => FileType::Directory,
    }
}

impl Filesystem for Adapter {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.to_string_lossy().into_owned();
        self.ask(Operation::Lookup, move |tree| {
            let found = (|| {
                let node = tree.find(&tree.node(parent.0)?, &name)?;
                let shape = tree.shape(&node)?;
                Ok((node, shape))
            })();
            match found {
                Ok((node, shape)) => {
                    let attributes = attributes(tree.number(node), shape);
                    reply.entry(&TRUE_FOR, &attributes, Generation(0));
                }
                Err(trouble) => reply.error(errno(trouble)),
            }
        });
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.ask(Operation::Forget, move |tree| tree.forget(ino.0, nlookup));
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.ask(Operation::Getattr, move |tree| {
            let shape = tree.node(ino.0).and_then(|node| tree.shape(&node));
            match shape {
                Ok(shape) => reply.attr(&TRUE_FOR, &attributes(ino.0, shape)),
                Err(trouble) => reply.error(errno(trouble)),
            }
        });
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        self.ask(Operation::Readlink, move |tree| match tree.node(ino.0) {
            Ok(Node::Link(_, _, epoch)) => reply.data(format!("@{epoch}").as_bytes()),
            Ok(_) => reply.error(Errno::EINVAL),
            Err(trouble) => reply.error(errno(trouble)),
        });
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        self.ask(Operation::Open, move |tree| match tree.node(ino.0) {
            Ok(node) => {
                tree.opened(&node);
                reply.opened(FileHandle(0), FopenFlags::empty());
            }
            Err(trouble) => reply.error(errno(trouble)),
        });
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.ask(Operation::Read, move |tree| {
            let node = tree.node(ino.0);
            let bytes = node.and_then(|node| tree.read(&node, offset, size as usize));
            match bytes {
                Ok(bytes) => reply.data(&bytes),
                Err(trouble) => reply.error(errno(trouble)),
            }
        });
    }

    fn readdir(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        self.ask(Operation::Readdir, move |tree| {
            let entries = tree.node(ino.0).and_then(|node| tree.list(&node));
            let entries = match entries {
                Ok(entries) => entries,
                Err(trouble) => return reply.error(errno(trouble)),
            };
            let dots = [".", ".."].map(|dots| (dots.to_owned(), FileType::Directory));
            let entry = |Entry { name, node }| (name, listed_kind(&node));
            let all = dots.into_iter().chain(entries.into_iter().map(entry));
            for (next, (name, kind)) in (1..).zip(all) {
                // The numbers in a listing are nobody's: they are given at the look-up.
                if next > offset && reply.add(INodeNo(u64::MAX), next, kind, name) {
                    break;
                }
            }
            reply.ok();
        });
    }
}
