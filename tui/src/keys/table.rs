//! The one table of what can be done: help, palette, hints and docs/tui.md are made from it.

use super::Action;
use crate::place::Pane;

/// Parts of the help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    Time,
    Moving,
    Looking,
    Asking,
    Running,
    Doing,
}

impl Section {
    pub fn title(self) -> &'static str {
        match self {
            Self::Time => "Time",
            Self::Moving => "Moving",
            Self::Looking => "Looking",
            Self::Asking => "Asking",
            Self::Running => "Running the live process (asks once)",
            Self::Doing => "Doing",
        }
    }
}

/// One thing that can be done.
#[derive(Debug)]
pub struct Entry {
    pub action: Action,
    /// What key map files, the palette and the command line call it.
    pub name: &'static str,
    /// Keys that do it unless a key map file says otherwise, as [`super::notation::parse`] reads them.
    pub keys: &'static [&'static str],
    pub help: &'static str,
    pub section: Section,
}

const fn entry(
    section: Section,
    action: Action,
    name: &'static str,
    keys: &'static [&'static str],
    help: &'static str,
) -> Entry {
    Entry {
        action,
        name,
        keys,
        help,
        section,
    }
}

use Action as A;
use Section::{Asking, Doing, Looking, Moving, Running, Time};

/// All of them, in the order of the help.
#[rustfmt::skip] // One line each.
pub const TABLE: &[Entry] = &[
    entry(Time, A::Previous, "previous", &[","], "the checkpoint before (Left in the timeline)"),
    entry(Time, A::Next, "next", &["."], "the checkpoint after (Right in the timeline)"),
    entry(Time, A::PreviousChange, "previous-change", &["<lt>"], "back to where the selected value last changed"),
    entry(Time, A::NextChange, "next-change", &[">"], "on to where the selected value changes next"),
    entry(Time, A::First, "first", &["<Home>"], "the first checkpoint"),
    entry(Time, A::Newest, "newest", &["<End>"], "the newest, and follow what comes"),
    entry(Time, A::Bookmark, "bookmark", &["m"], "bookmark this checkpoint, or take its bookmark away"),
    entry(Time, A::Jump, "jump", &["'"], "jump to a bookmark or a named checkpoint"),
    entry(Time, A::Base, "base", &["gd"], "compare with this checkpoint; again: with the one before"),
    entry(Time, A::Branch, "branch", &["gb"], "go to the end of another branch"),
    entry(Moving, A::Pane(Pane::Timeline), "timeline-pane", &["1"], "timeline"),
    entry(Moving, A::Pane(Pane::Threads), "threads-pane", &["2"], "threads and their stacks"),
    entry(Moving, A::Pane(Pane::Source), "source-pane", &["3"], "source, assembly"),
    entry(Moving, A::Pane(Pane::Variables), "variables-pane", &["4"], "watches, locals, globals"),
    entry(Moving, A::Pane(Pane::Memory), "memory-pane", &["5"], "memory, and what else there is to see"),
    entry(Moving, A::NextPane, "next-pane", &["<Tab>"], "the next pane"),
    entry(Moving, A::PreviousPane, "previous-pane", &["<S-Tab>"], "the pane before"),
    entry(Moving, A::NextTab, "next-tab", &["]"], "the next tab of the pane"),
    entry(Moving, A::PreviousTab, "previous-tab", &["["], "the tab before"),
    entry(Moving, A::Up, "up", &["<Up>", "k"], "up in the pane; timeline: the number before"),
    entry(Moving, A::Down, "down", &["<Down>", "j"], "down in the pane; timeline: the number after"),
    entry(Moving, A::PageUp, "page-up", &["<PgUp>"], "ten up"),
    entry(Moving, A::PageDown, "page-down", &["<PgDn>"], "ten down"),
    entry(Moving, A::Left, "left", &["<Left>", "h"], "close a node; source, tables: to the left"),
    entry(Moving, A::Right, "right", &["<Right>", "l"], "open a node; source, tables: to the right"),
    entry(Moving, A::Top, "top", &["gg"], "to the top of the pane"),
    entry(Moving, A::Bottom, "bottom", &["G"], "to its bottom"),
    entry(Moving, A::Filter, "filter", &["/"], "show only rows with this text; source: find it"),
    entry(Moving, A::Zoom, "zoom", &["+"], "the pane over the whole screen"),
    entry(Moving, A::Unzoom, "unzoom", &["_"], "all panes again"),
    entry(Looking, A::Enter, "open", &["<Enter>"], "open a node, select a thread or frame, go where a row leads"),
    entry(Looking, A::FrameUp, "frame-up", &["u"], "the frame that called this one"),
    entry(Looking, A::FrameDown, "frame-down", &["d"], "the frame that this one called"),
    entry(Looking, A::Where, "where", &["w"], "to the stack"),
    entry(Looking, A::Locals, "locals", &["v"], "to the variables"),
    entry(Looking, A::Watch, "watch", &["e"], "watch an expression"),
    entry(Looking, A::Unwatch, "unwatch", &["<Del>"], "stop watching the selected expression"),
    entry(Looking, A::Memory, "memory", &["gm"], "memory where the selected variable lies"),
    entry(Looking, A::Address, "address", &["ga"], "memory at an address or expression"),
    entry(Looking, A::Copy, "copy", &["y"], "copy the selected value or row"),
    entry(Asking, A::Timeline, "timeline", &["t"], "the selected value at every checkpoint"),
    entry(Asking, A::Blame, "blame", &["gl"], "since when each part of the selected value is what it is"),
    entry(Asking, A::Refs, "refs", &["gr"], "who points at the selected object"),
    entry(Asking, A::Diff, "diff", &["gD"], "all that differs from the base"),
    entry(Asking, A::Heap, "heap", &["gh"], "the heap by type, and what has grown since the base"),
    entry(Asking, A::Bisect, "bisect", &["gi"], "the first checkpoint at which a condition has turned"),
    entry(Asking, A::Scan, "scan", &["gs"], "search memory for a value"),
    entry(Running, A::Continue, "continue", &["c"], "let it run until a breakpoint, a watchpoint, a signal or its end"),
    entry(Running, A::Pause, "pause", &["p"], "stop it where it is"),
    entry(Running, A::StepOver, "next-line", &["n"], "to the next line of this function"),
    entry(Running, A::Step, "step", &["s"], "to the next line, into functions"),
    entry(Running, A::Finish, "finish", &["f"], "until this function returns"),
    entry(Running, A::StepInstruction, "step-instruction", &["i"], "one machine instruction"),
    entry(Running, A::StepOverInstruction, "next-instruction", &["o"], "one machine instruction, over calls"),
    entry(Running, A::Back, "back", &["N", "S", "I", "O", "C"], "backwards: to the checkpoint before, not to the line before"),
    entry(Running, A::Break, "breakpoint", &["b"], "a breakpoint at the selected source line, or none there"),
    entry(Running, A::Breakpoints, "breakpoints", &["gB"], "list breakpoints and watchpoints"),
    entry(Doing, A::Rewind, "rewind", &["R"], "rewind the process to the checkpoint looked at (asks first)"),
    entry(Doing, A::Partitions, "partitions", &["gp"], "look at another partition or process"),
    entry(Doing, A::Command, "command", &[":"], "type a command; Tab completes"),
    entry(Doing, A::Palette, "palette", &["<C-p>"], "find a command by some of its letters"),
    entry(Doing, A::Help, "help", &["?"], "this help"),
    entry(Doing, A::Escape, "close", &["<Esc>"], "close what is on top, stop what is asked, clear a filter"),
    entry(Doing, A::Redraw, "redraw", &["<C-l>"], "draw the screen anew"),
    entry(Doing, A::Suspend, "suspend", &["<C-z>"], "back to the shell; `fg` returns"),
    entry(Doing, A::Quit, "quit", &["q", "<C-c>"], "quit"),
];
