//! One ELF file: segments, symbols, unwind tables and DWARF, read whole and shared by every program that maps it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use gimli::{LittleEndian, Reader, SectionId};
use object::elf;
use object::read::elf::{ElfFile64, ProgramHeader};
use object::{LittleEndian as LE, Object, ObjectSection};

use crate::debug_info::DebugInfo;
use crate::finder::Finder;
use crate::mini_debug;
use crate::split::Beside;
use crate::supplement::{Link, Supplement, parse_debug_sup};
use crate::symbols::Symbols;

/// Reader over a shared section; cloning it clones an `Arc`.
pub type Slice = gimli::EndianArcSlice<LittleEndian>;

/// Encodings of the search table that linkers write: pcrel sdata4, udata4, datarel sdata4. With a count of 32 bits
/// gimli's arithmetic on it cannot overflow; other tables are not used, and the frames scanned instead.
const SEARCH_TABLE: [u8; 3] = [0x1b, 0x03, 0x3b];

/// No section decompresses to more than this.
const SECTION_LIMIT: u64 = 1 << 30;

#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error("{path}: not an ELF file for x86-64")]
    Parse { path: String, source: object::Error },
    #[error("{path}: ELF for another machine")]
    Machine { path: String },
}

/// A loadable segment, in the file's own addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    pub address: u64,
    pub memory_len: u64,
    pub offset: u64,
    pub file_len: u64,
    pub executable: bool,
}

/// Thread-local template (`PT_TLS`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TlsSegment {
    pub address: u64,
    pub memory_len: u64,
    pub align: u64,
}

pub struct ObjectFile {
    pub path: String,
    pub build_id: Option<Vec<u8>>,
    pub segments: Vec<Segment>,
    pub tls: Option<TlsSegment>,
    /// Position-dependent executables are `ET_EXEC`; everything else has a bias.
    pub is_executable: bool,
    image: Arc<[u8]>,
    finder: Finder,
    sections: OnceLock<UnwindSections>,
    debug: OnceLock<Option<DebugInfo>>,
    symbols: OnceLock<Symbols>,
    own_debug: OnceLock<bool>,
}

/// Everything CFI needs, with the addresses its encodings are relative to.
pub struct UnwindSections {
    /// Address of `.eh_frame` in the file.
    pub eh_frame_address: u64,
    pub eh_frame: Option<gimli::EhFrame<Slice>>,
    pub eh_frame_hdr: Option<gimli::ParsedEhFrameHdr<Slice>>,
    pub debug_frame: Option<gimli::DebugFrame<Slice>>,
    pub bases: gimli::BaseAddresses,
}

impl ObjectFile {
    pub fn parse(path: &str, image: Arc<[u8]>, finder: &Finder) -> Result<Self, ObjectError> {
        let elf = parse_elf(&image).map_err(|source| ObjectError::Parse {
            path: path.into(),
            source,
        })?;
        if elf.elf_header().e_machine.get(LE) != elf::EM_X86_64 {
            return Err(ObjectError::Machine { path: path.into() });
        }
        let mut segments = Vec::new();
        let mut tls = None;
        for program in elf.elf_program_headers() {
            match program.p_type(LE) {
                elf::PT_LOAD => segments.push(Segment {
                    address: program.p_vaddr(LE),
                    memory_len: program.p_memsz(LE),
                    offset: program.p_offset(LE),
                    file_len: program.p_filesz(LE),
                    executable: program.p_flags(LE) & elf::PF_X != 0,
                }),
                elf::PT_TLS => {
                    tls = Some(TlsSegment {
                        address: program.p_vaddr(LE),
                        memory_len: program.p_memsz(LE),
                        align: program.p_align(LE).max(1),
                    })
                }
                _ => {}
            }
        }
        let build_id = elf.build_id().ok().flatten().map(<[u8]>::to_vec);
        let is_executable = elf.elf_header().e_type.get(LE) == elf::ET_EXEC;
        Ok(Self {
            path: path.into(),
            build_id,
            segments,
            tls,
            is_executable,
            image,
            finder: finder.clone(),
            sections: OnceLock::new(),
            debug: OnceLock::new(),
            symbols: OnceLock::new(),
            own_debug: OnceLock::new(),
        })
    }

    /// DWARF of the file, or of its separate debug file.
    pub fn debug(&self) -> Option<&DebugInfo> {
        self.debug.get_or_init(|| self.load_debug()).as_ref()
    }

    /// Whether the DWARF is in the file itself, as programs under development have it, and system libraries do not.
    pub fn has_own_debug(&self) -> bool {
        *self
            .own_debug
            .get_or_init(|| parse_elf(&self.image).is_ok_and(|elf| has_debug_info(&elf)))
    }

    pub fn symbols(&self) -> &Symbols {
        self.symbols.get_or_init(|| {
            let separate = self.separate_file().map(|(_, image)| image);
            let mini = self.mini_image();
            let images = [Some(&*self.image), separate.as_deref(), mini.as_deref()];
            Symbols::collect(
                images
                    .into_iter()
                    .flatten()
                    .filter_map(|image| parse_elf(image).ok()),
            )
        })
    }

    pub fn unwind_sections(&self) -> &UnwindSections {
        self.sections.get_or_init(|| self.load_unwind_sections())
    }

    fn load_debug(&self) -> Option<DebugInfo> {
        let own = parse_elf(&self.image).ok()?;
        if has_debug_info(&own) {
            return self.load_dwarf(&self.path, &self.image, vec![self.path.clone()]);
        }
        let (path, image) = self.separate_file()?;
        let path = path.display().to_string();
        self.load_dwarf(&path, &image, vec![self.path.clone(), path.clone()])
    }

    fn load_dwarf(&self, at: &str, image: &Arc<[u8]>, paths: Vec<String>) -> Option<DebugInfo> {
        let elf = parse_elf(image).ok()?;
        elf.section_by_name(".debug_info")?;
        let link = supplement_link(&elf, image);
        let supplement = link.map(|link| Supplement::find(at, &link, &self.finder));
        let beside = Beside {
            finder: self.finder.clone(),
            paths,
            build_id: self.build_id.clone(),
        };
        DebugInfo::load(|id| section(image, &elf, id.name()), beside, supplement)
    }

    fn separate_file(&self) -> Option<(PathBuf, Arc<[u8]>)> {
        let elf = parse_elf(&self.image).ok()?;
        let link = elf.gnu_debuglink().ok().flatten();
        self.finder
            .debug_file(&self.path, self.build_id.as_deref(), link)
    }

    /// What keeps parts of it unknown, as far as that was met: a sentence for each file that is not there.
    pub fn troubles(&self) -> Vec<String> {
        let debug = self.debug.get().and_then(Option::as_ref);
        debug.map(DebugInfo::troubles).unwrap_or_default()
    }

    /// The other files that its DWARF is in, the separate debug file aside, each with the place where it is found below a
    /// root; and a sentence for each that is not there.
    pub fn companions(&self) -> (BTreeSet<(PathBuf, PathBuf)>, Vec<String>) {
        self.debug().map(DebugInfo::files).unwrap_or_default()
    }

    /// The symbols that a stripped file keeps, unpacked.
    fn mini_image(&self) -> Option<Vec<u8>> {
        let elf = parse_elf(&self.image).ok()?;
        let packed = elf.section_by_name(".gnu_debugdata")?;
        mini_debug::unpack(packed.data().ok()?)
    }

    fn load_unwind_sections(&self) -> UnwindSections {
        let mut bases = gimli::BaseAddresses::default();
        let mut loaded = UnwindSections {
            eh_frame_address: 0,
            eh_frame: None,
            eh_frame_hdr: None,
            debug_frame: None,
            bases: bases.clone(),
        };
        let Ok(elf) = parse_elf(&self.image) else {
            return loaded;
        };
        let address = |name: &str| elf.section_by_name(name).map(|section| section.address());
        if let Some(at) = address(".text") {
            bases = bases.set_text(at);
        }
        if let Some(at) = address(".got") {
            bases = bases.set_got(at);
        }
        if let Some(at) = address(".eh_frame") {
            bases = bases.set_eh_frame(at);
            loaded.eh_frame_address = at;
            loaded.eh_frame = Some(gimli::EhFrame::from(section(
                &self.image,
                &elf,
                ".eh_frame",
            )));
        }
        if let Some(at) = address(".eh_frame_hdr") {
            bases = bases.set_eh_frame_hdr(at);
            let bytes = section(&self.image, &elf, ".eh_frame_hdr");
            if bytes.bytes().get(1..4) == Some(&SEARCH_TABLE) {
                loaded.eh_frame_hdr = gimli::EhFrameHdr::from(bytes).parse(&bases, 8).ok();
            }
        }
        let frame = section(&self.image, &elf, ".debug_frame");
        let frame = if frame.is_empty() {
            self.separate_debug_frame()
        } else {
            Some(frame)
        };
        loaded.debug_frame = frame.map(|frame| {
            let mut frame = gimli::DebugFrame::from(frame);
            frame.set_address_size(8);
            frame
        });
        loaded.bases = bases;
        loaded
    }

    fn separate_debug_frame(&self) -> Option<Slice> {
        let (_, image) = self.separate_file()?;
        let elf = parse_elf(&image).ok()?;
        Some(section(&image, &elf, ".debug_frame")).filter(|frame| !frame.is_empty())
    }
}

/// Build id of an ELF image, for comparing files with what is mapped.
pub fn build_id_of(image: &[u8]) -> Option<Vec<u8>> {
    parse_elf(image)
        .ok()?
        .build_id()
        .ok()
        .flatten()
        .map(<[u8]>::to_vec)
}

/// What its separate debug file is known by: a build id, and a name with a checksum.
#[expect(clippy::type_complexity, reason = "said once")]
pub fn separate_of(image: &[u8]) -> Option<(Option<Vec<u8>>, Option<(Vec<u8>, u32)>)> {
    let elf = parse_elf(image).ok()?;
    if has_debug_info(&elf) {
        return None;
    }
    let id = elf.build_id().ok().flatten().map(<[u8]>::to_vec);
    let link = elf.gnu_debuglink().ok().flatten();
    Some((id, link.map(|(name, crc)| (name.to_vec(), crc))))
}

/// `.debug_sup` of an ELF image.
pub fn debug_sup_of(image: &[u8]) -> Option<(bool, Link)> {
    let image: Arc<[u8]> = image.into();
    let elf = parse_elf(&image).ok()?;
    parse_debug_sup(section(&image, &elf, ".debug_sup")).ok()
}

/// The file that dwz moved things to.
fn supplement_link(elf: &ElfFile64<'_, LE>, image: &Arc<[u8]>) -> Option<Link> {
    if let Ok(Some((name, id))) = elf.gnu_debugaltlink() {
        let name = String::from_utf8_lossy(name).into_owned();
        let id = id.to_vec();
        return Some(Link { name, id });
    }
    let (is_common, link) = parse_debug_sup(section(image, elf, ".debug_sup")).ok()?;
    (!is_common).then_some(link)
}

/// Reads the sections of an ELF file by what `name` calls them; None when it is none.
pub fn sections_named(
    image: Arc<[u8]>,
    name: impl Fn(SectionId) -> Option<&'static str>,
) -> Option<impl FnMut(SectionId) -> Slice> {
    parse_elf(&image).ok()?;
    Some(move |id| match (name(id), parse_elf(&image)) {
        (Some(name), Ok(elf)) => joined(&image, &elf, name),
        _ => empty(),
    })
}

pub fn empty() -> Slice {
    Slice::new(Arc::from([]), LittleEndian)
}

fn has_debug_info(elf: &ElfFile64<'_, LE>) -> bool {
    [".debug_info", ".zdebug_info"]
        .iter()
        .any(|name| elf.section_by_name(name).is_some())
}

fn parse_elf(image: &[u8]) -> object::Result<ElfFile64<'_, LE>> {
    ElfFile64::parse(image)
}

/// A section's bytes: a window on the image, or its decompressed copy; empty when absent or damaged.
fn section(image: &Arc<[u8]>, elf: &ElfFile64<'_, LE>, name: &str) -> Slice {
    let found = elf.section_by_name(name);
    found
        .and_then(|section| content(image, &section))
        .unwrap_or_else(empty)
}

/// The bytes of all sections of a name: no linker has joined those of a `.dwo`, which has one for each type unit.
fn joined(image: &Arc<[u8]>, elf: &ElfFile64<'_, LE>, name: &str) -> Slice {
    let named = |section: &Section<'_>| section.name() == Ok(name);
    if elf.sections().filter(named).nth(1).is_none() {
        return section(image, elf, name);
    }
    let mut bytes = Vec::new();
    for section in elf.sections().filter(named) {
        let some = content(image, &section).unwrap_or_else(empty);
        if bytes.len() as u64 + some.len() as u64 > SECTION_LIMIT {
            break;
        }
        bytes.extend_from_slice(some.bytes());
    }
    Slice::new(bytes.into(), LittleEndian)
}

type Section<'data> = object::read::elf::ElfSection64<'data, 'data, LE>;

fn content(image: &Arc<[u8]>, section: &Section<'_>) -> Option<Slice> {
    let packed = section.compressed_data().ok()?;
    if packed.format != object::CompressionFormat::None {
        if packed.uncompressed_size > SECTION_LIMIT {
            return None;
        }
        let bytes = packed.decompress().ok()?.into_owned();
        return Some(Slice::new(bytes.into(), LittleEndian));
    }
    let (offset, len) = section.file_range()?;
    let start = usize::try_from(offset).ok()?;
    let end = start.checked_add(usize::try_from(len).ok()?)?;
    let whole = Slice::new(Arc::clone(image), LittleEndian);
    (end <= image.len()).then(|| whole.range(start..end))
}
