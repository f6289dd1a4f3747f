//! ELF symbols by address and by name: all there is where a file has no DWARF.

use std::collections::HashMap;

use object::read::elf::ElfFile64;
use object::{LittleEndian as LE, Object, ObjectSymbol, SymbolKind};

/// Function and data symbols of a file and of its debug file.
#[derive(Default)]
pub struct Symbols {
    by_address: Vec<Symbol>,
    by_name: HashMap<Box<str>, usize>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Symbol {
    /// In the file's own addresses.
    pub address: u64,
    pub size: u64,
    pub function: bool,
    /// As in the file, without a version.
    pub name: Box<str>,
}

impl Symbols {
    pub(crate) fn collect<'data>(files: impl Iterator<Item = ElfFile64<'data, LE>>) -> Self {
        let mut all = Vec::new();
        for elf in files {
            for symbol in elf.symbols().chain(elf.dynamic_symbols()) {
                all.extend(convert(&symbol));
            }
        }
        // At one address prefer a sized symbol, then the plainer name (`malloc` before `__libc_malloc`).
        all.sort_by(|a: &Symbol, b| {
            (a.address, a.size == 0, underscores(&a.name), &a.name).cmp(&(
                b.address,
                b.size == 0,
                underscores(&b.name),
                &b.name,
            ))
        });
        all.dedup_by(|a, b| a.address == b.address && a.name == b.name);
        let mut by_name = HashMap::new();
        for (index, symbol) in all.iter().enumerate() {
            by_name.entry(symbol.name.clone()).or_insert(index);
        }
        Self {
            by_address: all,
            by_name,
        }
    }

    /// The symbol that covers `address`, preferring functions.
    pub fn at(&self, address: u64) -> Option<&Symbol> {
        let after = self
            .by_address
            .partition_point(|symbol| symbol.address <= address);
        let before = &self.by_address[..after];
        // Aliases and nested labels are close by; a bound keeps a damaged table from making this a scan.
        let mut best: Option<&Symbol> = None;
        for symbol in before.iter().rev().take(64) {
            let covers = address - symbol.address
                < symbol
                    .size
                    .max(u64::from(symbol.size == 0 && symbol.address == address));
            if covers
                && best.is_none_or(|chosen| {
                    symbol.address == chosen.address || (symbol.function && !chosen.function)
                })
            {
                best = Some(symbol);
            }
            if best.is_some_and(|chosen| symbol.address < chosen.address && chosen.function) {
                break;
            }
        }
        // Hand-written assembly has no sizes: the last function label before, if nothing else ends in between.
        best.or_else(|| {
            before
                .last()
                .filter(|symbol| symbol.size == 0 && symbol.function)
        })
    }

    pub fn named(&self, name: &str) -> Option<&Symbol> {
        self.by_name.get(name).map(|index| &self.by_address[*index])
    }

    pub fn iter(&self) -> impl Iterator<Item = &Symbol> {
        self.by_address.iter()
    }
}

/// A C++ or Rust name made readable, without hash or parameters; others as they are.
pub fn demangle(name: &str) -> String {
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        return format!("{rust:#}");
    }
    let options = cpp_demangle::DemangleOptions::new()
        .no_params()
        .no_return_type()
        .recursion_limit(96);
    let demangled = name
        .starts_with("_Z")
        .then(|| {
            cpp_demangle::Symbol::new(name)
                .ok()?
                .demangle_with_options(&options)
                .ok()
        })
        .flatten();
    demangled.unwrap_or_else(|| name.to_owned())
}

fn underscores(name: &str) -> usize {
    name.bytes().take_while(|byte| *byte == b'_').count()
}

fn convert<'data>(symbol: &impl ObjectSymbol<'data>) -> Option<Symbol> {
    let function = match symbol.kind() {
        SymbolKind::Text => true,
        SymbolKind::Data => false,
        SymbolKind::Unknown | SymbolKind::Label if symbol.is_definition() => true,
        _ => return None,
    };
    if symbol.is_undefined() || symbol.address() == 0 {
        return None;
    }
    let name = symbol.name().ok()?;
    let name = name.split('@').next().filter(|name| !name.is_empty())?;
    Some(Symbol {
        address: symbol.address(),
        size: symbol.size(),
        function,
        name: name.into(),
    })
}
