//! Where do the figures go? Between the markers of docs/PERFORMANCE.md, with a plot beside the measurement.

use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use crate::schema::{Report, SCHEMA};
use crate::{plot, render};

/// Reads a measurement.
pub(crate) fn read(path: &Path) -> Result<Report> {
    let text = std::fs::read(path).with_context(|| format!("{}", path.display()))?;
    let report: Report =
        serde_json::from_slice(&text).with_context(|| format!("{} is no measurement of this bench", path.display()))?;
    ensure!(
        report.schema == SCHEMA,
        "{} is of schema {}, and this program knows {SCHEMA}",
        path.display(),
        report.schema
    );
    Ok(report)
}

/// Why a report may not be published; None: it may.
fn unfit(report: &Report) -> Option<&'static str> {
    if report.invented {
        return Some("its figures are invented, for tests");
    }
    if report.dry_run {
        return Some("it is of a dry run, which measures nothing");
    }
    report.machine.gpu.is_none().then_some("it names no GPU")
}

/// Writes the page's part and the plot for a measurement below `docs`, or without one that there is none.
pub(crate) fn write(docs: &Path, measurement: Option<&Path>) -> Result<()> {
    let page = docs.join("PERFORMANCE.md");
    let text = std::fs::read_to_string(&page).with_context(|| format!("{}", page.display()))?;
    let part = match measurement {
        None => render::UNMEASURED.to_owned(),
        Some(path) => {
            let report = read(path)?;
            if let Some(reason) = unfit(&report) {
                bail!("{} cannot be published: {reason}", path.display());
            }
            let file = path
                .file_stem()
                .context("a file's name")?
                .to_string_lossy()
                .into_owned();
            let folder = docs.join("measurements");
            std::fs::create_dir_all(&folder)?;
            let kept = folder.join(format!("{file}.json"));
            std::fs::write(&kept, serde_json::to_string_pretty(&report)? + "\n")
                .with_context(|| format!("{}", kept.display()))?;
            let mut part = render::page(&report, &file);
            if let Some(svg) = plot::svg(&report) {
                std::fs::write(folder.join(format!("{file}.svg")), svg)?;
                part += &format!("\n![Time by batch, and what a batch brings](measurements/{file}.svg)\n");
            }
            part
        }
    };
    let made = replaced(&text, "gpu", &part).with_context(|| format!("{} has no markers for gpu", page.display()))?;
    std::fs::write(&page, made).with_context(|| format!("{}", page.display()))
}

fn replaced(text: &str, name: &str, inside: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- begin {name} -->\n"), format!("<!-- end {name} -->"));
    let from = text.find(&begin)? + begin.len();
    let to = from + text[from..].find(&end)?;
    Some(format!("{}{}\n{}", &text[..from], inside.trim_end(), &text[to..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::tests::sample;

    /// A folder of its own, removed at the end.
    struct Folder(std::path::PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("comfy-gpu-bench-{name}-{}", std::process::id()));
            std::fs::create_dir_all(path.join("docs")).unwrap();
            let page = "# Performance\n\n<!-- begin gpu -->\nold\n<!-- end gpu -->\n\nLimits.\n";
            std::fs::write(path.join("docs/PERFORMANCE.md"), page).unwrap();
            Self(path)
        }

        fn page(&self) -> String {
            std::fs::read_to_string(self.0.join("docs/PERFORMANCE.md")).unwrap()
        }

        fn write(&self, report: &Report) -> Result<()> {
            let path = self.0.join("a-gpu-1999-12-31.json");
            std::fs::write(&path, serde_json::to_string(report).unwrap()).unwrap();
            write(&self.0.join("docs"), Some(&path))
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn nothing_that_was_not_measured_is_published() {
        let folder = Folder::new("unfit");
        let mut report = sample();
        let before = folder.page();
        let text = folder.write(&report).unwrap_err().to_string();
        assert!(text.contains("invented"), "{text}");
        report.invented = false;
        report.dry_run = true;
        let text = folder.write(&report).unwrap_err().to_string();
        assert!(text.contains("dry run"), "{text}");
        report.dry_run = false;
        report.machine.gpu = None;
        assert!(folder.write(&report).is_err());
        assert_eq!(folder.page(), before);
        assert!(!folder.0.join("docs/measurements").exists());
    }

    #[test]
    fn a_measurement_stands_between_the_markers_with_its_plot_and_file_beside() {
        let folder = Folder::new("fit");
        let mut report = sample();
        report.invented = false;
        folder.write(&report).unwrap();
        let page = folder.page();
        assert!(
            page.starts_with("# Performance\n\n<!-- begin gpu -->\nA GPU like"),
            "{page}"
        );
        assert!(
            page.ends_with("(measurements/a-gpu-1999-12-31.svg)\n<!-- end gpu -->\n\nLimits.\n"),
            "{page}"
        );
        for kind in ["json", "svg"] {
            assert!(
                folder
                    .0
                    .join(format!("docs/measurements/a-gpu-1999-12-31.{kind}"))
                    .is_file()
            );
        }
        write(&folder.0.join("docs"), None).unwrap();
        assert!(folder.page().contains("Nothing has been measured on a GPU yet"));
        assert!(!folder.page().contains("A GPU like"));
    }

    /// What is committed says what was measured, or that nothing was.
    #[test]
    fn the_page_of_this_repository_is_what_its_measurements_say() {
        let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        let page = std::fs::read_to_string(docs.join("PERFORMANCE.md")).unwrap();
        let mut measured = Vec::new();
        for entry in std::fs::read_dir(docs.join("measurements")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Ok(report) = read(&path)
            {
                assert_eq!(unfit(&report), None, "{}", path.display());
                let file = path.file_stem().unwrap().to_string_lossy().into_owned();
                measured.push((render::page(&report, &file), path));
            }
        }
        if measured.is_empty() {
            assert_eq!(replaced(&page, "gpu", render::UNMEASURED).as_ref(), Some(&page));
        } else {
            assert!(
                measured.iter().any(|(part, _)| page.contains(part.trim_end())),
                "the page shows none of {:?}",
                measured.iter().map(|(_, path)| path).collect::<Vec<_>>()
            );
        }
    }
}
