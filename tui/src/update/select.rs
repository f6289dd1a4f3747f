//! Frames that are selected, and what of a pane is copied.

use super::note;
use crate::model::{Model, ThreadRow};
use crate::place::Tab;

/// Selects the frame so many calls further out.
pub fn frame(model: &mut Model, by: isize) {
    let Some(look) = &model.look else { return };
    let here = look.frame.unwrap_or(0);
    let to = here.checked_add_signed(by);
    let Some((at, frame)) = to.and_then(|to| Some((to, look.frames.get(to)?))) else {
        let end = if by > 0 { "outermost" } else { "innermost" };
        return note(model, format!("this is the {end} frame"));
    };
    model.tid = Some(look.tid);
    model.frame = Some(frame.key.clone());
    model.cursors.source = 0;
    let number = look
        .threads
        .iter()
        .position(|thread| Some(thread.tid) == model.tid);
    let wanted = ThreadRow::Frame(number.unwrap_or(0), at);
    if let Some(row) = model.thread_rows().iter().position(|row| *row == wanted) {
        model.cursors.put(Tab::Threads, row);
    }
}

/// Selects what a row of the threads pane shows.
pub fn row(model: &mut Model, row: Option<ThreadRow>) {
    let Some(look) = &model.look else { return };
    match row {
        Some(ThreadRow::Thread(number)) => {
            let Some(tid) = look.threads.get(number).map(|thread| thread.tid) else {
                return;
            };
            // The one that was selected keeps its stack open.
            model.stacks.insert(look.tid);
            model.stacks.insert(tid);
            model.tid = Some(tid);
            model.frame = None;
        }
        Some(ThreadRow::Frame(number, at)) => {
            let Some(thread) = look.threads.get(number) else {
                return;
            };
            model.stacks.insert(look.tid);
            model.stacks.insert(thread.tid);
            model.tid = Some(thread.tid);
            model.frame = look
                .stack(thread.tid)
                .get(at)
                .map(|frame| frame.key.clone());
        }
        None => return,
    }
    model.cursors.source = 0;
}

/// Opens or closes a thread's stack.
pub fn open(model: &mut Model, row: Option<ThreadRow>, open: bool) {
    let (Some(look), Some(ThreadRow::Thread(number) | ThreadRow::Frame(number, _))) =
        (&model.look, row)
    else {
        return;
    };
    let Some(tid) = look.threads.get(number).map(|thread| thread.tid) else {
        return;
    };
    if open {
        model.stacks.insert(tid);
    } else {
        model.stacks.remove(&tid);
    }
}

/// The selected thing as text.
pub fn text(model: &Model) -> Option<String> {
    let look = model.look.as_ref();
    match model.tab() {
        Tab::Timeline => (model.at != 0).then(|| format!("@{}", model.at)),
        Tab::Variables => {
            let row = model.selected_variable()?;
            (!row.text.is_empty()).then(|| row.text.clone())
        }
        Tab::Threads => {
            let look = look?;
            match *model.thread_rows().get(model.cursors.row(Tab::Threads))? {
                ThreadRow::Thread(number) => Some(look.threads.get(number)?.tid.to_string()),
                ThreadRow::Frame(number, at) => {
                    let frame = look.stack(look.threads.get(number)?.tid).get(at)?;
                    let pc = format!("{:#x}", frame.pc);
                    Some(frame.key.function.clone().unwrap_or(pc))
                }
            }
        }
        Tab::Source => {
            let source = look?.source.as_ref()?;
            let line = i64::from(source.line) + model.cursors.source;
            Some(format!("{}:{line}", source.path))
        }
        Tab::Assembly => {
            let code = look?.assembly.as_ref().ok()?;
            let one = code.get(model.cursors.row(Tab::Assembly))?;
            Some(format!("{:#x} {}", one.address, one.text))
        }
        Tab::Memory => Some(format!("{:#x}", look?.memory.as_ref().ok()?.start)),
        Tab::Log => model
            .log
            .get(model.cursors.row(Tab::Log))
            .map(|line| line.text.clone()),
        tab => {
            let (table, rows) = model.table(tab)?;
            table.line(*rows.get(model.cursors.row(tab))?)
        }
    }
}
