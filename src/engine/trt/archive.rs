//! Engines inside of files that PyTorch saved: a zip archive that holds a pickle and the bytes of each tensor.
//!
//! The pickle is a program, which is not run: the bytes are found by the archive's own list. What is accepted holds
//! one tensor that is nearly all of it, stored as it is, so that nothing unpacks to more than it takes on disk.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

use zip::{CompressionMethod, ZipArchive};

/// Entries of an archive: a checkpoint of weights has hundreds, an engine a handful.
const MAX_ENTRIES: usize = 64;
/// An engine is larger than this.
const MIN_BYTES: u64 = 256;
/// And not larger than this.
const MAX_BYTES: u64 = 32 << 30;
/// The magic number that begins an archive of PyTorch before 1.6, behind the pickle's own two bytes.
const LEGACY: [u8; 14] = *b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19";

/// What a file's first bytes tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    /// A zip archive.
    Zip,
    /// PyTorch's older format.
    Legacy,
    /// Something else: an engine says nothing of itself.
    Other,
}

pub(super) fn content(path: &Path) -> std::io::Result<Content> {
    let mut first = Vec::new();
    File::open(path)?.take(LEGACY.len() as u64).read_to_end(&mut first)?;
    Ok(if first.starts_with(b"PK\x03\x04") {
        Content::Zip
    } else if first == LEGACY {
        Content::Legacy
    } else {
        Content::Other
    })
}

/// What PyTorch's older format gets for an answer.
pub(super) const LEGACY_REASON: &str =
    "it is a file of PyTorch's older format, which only running it would open; save it again with PyTorch 1.6 or later";

/// Where the engine is in an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found {
    /// The entry's name.
    pub(super) name: String,
    /// Its size.
    pub(super) bytes: u64,
    index: usize,
}

/// Finds the engine. The error is a clause.
pub(super) fn locate(path: &Path) -> Result<Found, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    locate_in(&mut open(file)?, length)
}

fn open(file: File) -> Result<ZipArchive<BufReader<File>>, String> {
    ZipArchive::new(BufReader::new(file)).map_err(|error| format!("it is a damaged zip archive: {error}"))
}

fn locate_in(archive: &mut ZipArchive<BufReader<File>>, length: u64) -> Result<Found, String> {
    let no_engine = |why: &str| format!("it is a zip archive, and none of an engine that PyTorch saved: {why}");
    if archive.len() > MAX_ENTRIES {
        return Err(no_engine(&format!(
            "it holds {} files, as weights of a model do",
            archive.len()
        )));
    }
    let mut folder = None;
    let mut tensors = Vec::new();
    for index in 0..archive.len() {
        let entry = archive
            .by_index_raw(index)
            .map_err(|error| format!("it is a damaged zip archive: {error}"))?;
        let name = entry.name().to_owned();
        if let Some(parent) = name.strip_suffix("/data.pkl").filter(|parent| !parent.contains('/')) {
            folder = Some(parent.to_owned());
        }
        let plain = entry.compression() == CompressionMethod::Stored
            && !entry.encrypted()
            && entry.compressed_size() == entry.size()
            && entry.size() <= length;
        tensors.push((name, entry.size(), index, plain));
    }
    let folder = folder.ok_or_else(|| no_engine("it holds no data.pkl"))?;
    let prefix = format!("{folder}/data/");
    tensors.retain(|(name, ..)| {
        name.strip_prefix(&prefix)
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    });
    let all = tensors
        .iter()
        .fold(0_u64, |sum, (_, size, ..)| sum.saturating_add(*size));
    let largest = tensors.into_iter().max_by_key(|(_, size, ..)| *size);
    let (name, bytes, index, plain) = largest.ok_or_else(|| no_engine("it holds no tensor"))?;
    if !plain {
        return Err(no_engine(&format!(
            "{name} is compressed or encrypted, which PyTorch does not do"
        )));
    }
    if bytes < all / 10 * 9 {
        return Err(no_engine("no tensor is nearly all of it, as with weights of a model"));
    }
    if !(MIN_BYTES..=MAX_BYTES).contains(&bytes) {
        return Err(no_engine(&format!("{name} has {bytes} bytes")));
    }
    Ok(Found { name, bytes, index })
}

/// Writes the engine's bytes into a new file, checked against the archive's sum. The error is a clause.
pub(super) fn extract(path: &Path, to: &Path) -> Result<(), String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    let length = file.metadata().map_err(|error| error.to_string())?.len();
    let mut archive = open(file)?;
    let found = locate_in(&mut archive, length)?;
    let mut entry = archive
        .by_index(found.index)
        .map_err(|error| format!("{} cannot be read: {error}", found.name))?;
    let mut first = [0; 4];
    entry
        .read_exact(&mut first)
        .map_err(|error| format!("{} cannot be read: {error}", found.name))?;
    // Engines have no published mark of their own, other things do.
    if first.starts_with(b"PK\x03\x04") || first.starts_with(b"\x7fELF") || first == [0; 4] {
        return Err(format!("{} in it is no engine", found.name));
    }
    let mut out = File::create_new(to).map_err(|error| format!("{} cannot be written: {error}", to.display()))?;
    let written = out.write_all(&first).and_then(|()| {
        // One byte more than there may be, so that more is noticed; the sum is checked at the end.
        let copied = std::io::copy(&mut (&mut entry).take(found.bytes - 3), &mut out)?;
        out.sync_all()?;
        Ok(copied + 4)
    });
    match written {
        Ok(bytes) if bytes == found.bytes => Ok(()),
        Ok(_) => Err(format!("{} is not as long as it says", found.name)),
        Err(error) => Err(format!("{} cannot be unpacked: {error}", found.name)),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::engine::testing::Folder;

    /// A file as `torch.save` writes it: the named entries, stored.
    pub(in crate::engine::trt) fn archive(path: &Path, entries: &[(&str, &[u8])]) {
        let mut writer = zip::ZipWriter::new(File::create(path).unwrap());
        let stored = zip::write::SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
        for (name, bytes) in entries {
            writer.start_file(*name, stored).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap();
    }

    fn bytes(count: usize) -> Vec<u8> {
        (0..count).map(|at| (at % 251 + 1) as u8).collect()
    }

    #[test]
    fn the_engine_is_found_and_comes_out_as_it_went_in() {
        let folder = Folder::new("archive");
        let (path, to) = (folder.path().join("a.engine"), folder.path().join("engine"));
        let engine = bytes(100_000);
        archive(
            &path,
            &[
                ("archive/data.pkl", b"\x80\x02}q\x00."),
                ("archive/byteorder", b"little"),
                ("archive/data/0", &[1, 2, 3, 4]),
                ("archive/data/1", &engine),
                ("archive/version", b"3\n"),
            ],
        );
        assert_eq!(content(&path).unwrap(), Content::Zip);
        let found = locate(&path).unwrap();
        assert_eq!((found.name.as_str(), found.bytes), ("archive/data/1", 100_000));
        extract(&path, &to).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), engine);
        assert!(extract(&path, &to).unwrap_err().contains("cannot be written"));
    }

    #[test]
    fn what_is_no_engine_is_refused_with_why() {
        let folder = Folder::new("no-archive");
        let path = folder.path().join("a.engine");
        let (half, large) = (bytes(1000), bytes(2000));
        let many: Vec<(String, &[u8])> = (0..70).map(|n| (format!("a/data/{n}"), &half[..])).collect();
        let many: Vec<(&str, &[u8])> = many.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
        for (entries, part) in [
            (&[("a/data/0", &large[..])][..], "no data.pkl"),
            (&[("a/data.pkl", b"x")], "holds no tensor"),
            (&[("a/data.pkl", b"x"), ("b/data/0", &large)], "holds no tensor"),
            (&[("a/data.pkl", b"x"), ("a/data/../../x", &large)], "holds no tensor"),
            (&[("a/data.pkl", b"x"), ("a/data/0", b"abc")], "has 3 bytes"),
            (
                &[("a/data.pkl", b"x"), ("a/data/0", &large), ("a/data/1", &half)],
                "no tensor is nearly all",
            ),
            (&many, "70 files"),
        ] {
            archive(&path, entries);
            let reason = locate(&path).expect_err(part);
            assert!(reason.contains(part), "{reason}");
        }
        let zeros = vec![0; 1000];
        archive(&path, &[("a/data.pkl", b"x"), ("a/data/0", &zeros)]);
        let reason = extract(&path, &folder.path().join("out")).unwrap_err();
        assert!(reason.contains("is no engine"), "{reason}");
    }

    #[test]
    fn damage_is_noticed() {
        let folder = Folder::new("damaged-archive");
        let (path, to) = (folder.path().join("a.engine"), folder.path().join("engine"));
        archive(&path, &[("a/data.pkl", b"x"), ("a/data/0", &bytes(5000))]);
        let whole = std::fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[2500] ^= 1;
        std::fs::write(&path, &flipped).unwrap();
        assert!(extract(&path, &to).unwrap_err().contains("cannot be unpacked"));
        // A size in the list of contents that the file does not have.
        let at = whole.windows(4).rposition(|w| w == 5000_u32.to_le_bytes()).unwrap();
        let mut bomb = whole.clone();
        for at in [at, at - 4] {
            bomb[at..at + 4].copy_from_slice(&2_000_000_000_u32.to_le_bytes());
        }
        std::fs::write(&path, &bomb).unwrap();
        assert!(locate(&path).is_err());
        for end in [0, 3, 10, 100, whole.len() / 2, whole.len() - 1] {
            std::fs::write(&path, &whole[..end]).unwrap();
            assert!(locate(&path).is_err(), "{end}");
        }
    }

    #[test]
    fn the_older_format_is_known_by_its_first_bytes() {
        let folder = Folder::new("legacy-archive");
        let path = folder.path().join("a.engine");
        std::fs::write(&path, [&LEGACY[..], b".\x80\x02"].concat()).unwrap();
        assert_eq!(content(&path).unwrap(), Content::Legacy);
        std::fs::write(&path, b"engine").unwrap();
        assert_eq!(content(&path).unwrap(), Content::Other);
    }
}
