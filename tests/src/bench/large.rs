//! A program with hundreds of megabytes of DWARF, as those of rustc's or Chromium's class have: C++ of the standard
//! library, compiled twice (-O0 and -O2), and repeated with other names.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, ensure};

const UNIT: &str = include_str!("programs/unit.cpp");
/// Of them two in three are optimised, which takes three times the bytes: 180 are 376 MB of DWARF.
const COPIES: usize = 180;

/// Where it is; made on first use, which takes minutes.
pub fn program() -> anyhow::Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let target = exe.parent().context("a folder")?.parent();
    let folder = target.context("a target folder")?.join("large");
    let program = folder.join("large");
    if !program.is_file() {
        eprintln!("making {}, which takes some minutes", program.display());
        fs::create_dir_all(&folder)?;
        make(&folder)?;
    }
    Ok(program)
}

fn make(folder: &Path) -> anyhow::Result<()> {
    fs::write(folder.join("unit.cpp"), UNIT)?;
    let mut texts = Vec::new();
    for level in ["-O0", "-O2"] {
        let flags = ["-g", level, "-std=c++17", "-S", "unit.cpp", "-o", "unit.s"];
        run(folder, "g++", &flags)?;
        texts.push(fs::read_to_string(folder.join("unit.s"))?);
    }
    let next = AtomicUsize::new(0);
    let work = || -> anyhow::Result<()> {
        loop {
            let copy = next.fetch_add(1, Ordering::Relaxed);
            if copy >= COPIES {
                return Ok(());
            }
            repeat(folder, copy, &texts[usize::from(!copy.is_multiple_of(3))])?;
        }
    };
    std::thread::scope(|scope| {
        let other = scope.spawn(work);
        work()?;
        other
            .join()
            .map_err(|_| anyhow::Error::msg("a worker failed"))?
    })?;
    fs::write(folder.join("main.c"), main_source())?;
    run(folder, "gcc", &["-g", "-c", "main.c", "-o", "main.o"])?;
    let mut link = vec![
        "-pthread".to_owned(),
        "-o".into(),
        "linked".into(),
        "main.o".into(),
    ];
    link.extend((0..COPIES).map(|copy| format!("p{copy:03}.o")));
    let link: Vec<&str> = link.iter().map(String::as_str).collect();
    run(folder, "g++", &link)?;
    for copy in 0..COPIES {
        fs::remove_file(folder.join(format!("p{copy:03}.o")))?;
    }
    // Only what is whole has its name.
    fs::rename(folder.join("linked"), folder.join("large"))?;
    Ok(())
}

/// Names of one length in the place of others leave mangled ones right.
fn repeat(folder: &Path, copy: usize, text: &str) -> anyhow::Result<()> {
    let name = format!("p{copy:03}");
    let text = text.replace("part", &name);
    let text = text.replace("entry_000", &format!("entry_{copy:03}"));
    let source = format!("{name}.s");
    fs::write(folder.join(&source), text)?;
    run(folder, "as", &[&source, "-o", &format!("{name}.o")])?;
    fs::remove_file(folder.join(source))?;
    Ok(())
}

fn main_source() -> String {
    let entries = (0..COPIES).map(|copy| format!("entry_{copy:03}"));
    let declared: String = entries
        .clone()
        .map(|name| format!("long {name}(long);\n"))
        .collect();
    let listed = entries.collect::<Vec<_>>().join(", ");
    format!(
        "#include <stdlib.h>\n{declared}static long (*const table[])(long) = {{ {listed} }};\n\
         struct state {{ long number; const char *name; long table[4]; }} state = {{ 7, \"large\", {{ 1, 2, 3, 4 }} }};\n\
         long stop_here(long of) {{ long here = of + state.number; if (here) abort(); return here; }}\n\
         int main(void) {{ long sum = 0; for (int i = 0; i < 3; i++) sum += table[i](i); return stop_here(sum); }}\n"
    )
}

fn run(folder: &Path, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    let done = command.current_dir(folder).args(arguments).output();
    let done = done.with_context(|| format!("{program}; ./x setup installs it"))?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "{program}: {said}");
    Ok(())
}
