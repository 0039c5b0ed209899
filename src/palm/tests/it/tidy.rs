//! The house rules that neither Cargo nor clippy can see: which room may name which, how long a file may grow, that nothing
//! unfinished stays, and that the map shows every room.

use std::fs;
use std::path::{Path, PathBuf};

const MAX_FILE_LINES: usize = 700;

/// Rooms of the crate `palm` and the rooms that each must not name (ARCHITECTURE.md: dependencies run one way).
const WALLS: [(&str, &[&str]); 6] = [
    ("net", &["pool", "object", "s3", "admin", "cli"]),
    ("pool", &["object", "s3", "admin", "cli"]),
    ("object", &["s3", "admin", "cli"]),
    ("s3", &["net", "admin", "cli"]),
    ("admin", &["s3", "cli"]),
    ("config", &["net", "object", "s3", "admin", "cli"]),
];

/// Where a foreign crate may be named: below these paths, nowhere else.
const ONLY_IN: [(&str, &[&str]); 3] = [
    ("s3s", &["src/palm/src/s3/"]),
    ("quinn", &["src/palm/src/net/"]),
    ("rocksdb", &["backends/src/disk", "backends/src/rocks"]),
];

/// Split so that this file does not find itself.
const MARKS: [&str; 4] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("unimple", "mented!("), concat!("to", "do!(")];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every file of the source with one of the endings, as (path from the root, text).
fn sources(endings: &[&str]) -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = ["src", "backends", "bench", "s3-tests", "tools", "examples", "docs"]
        .iter()
        .map(|dir| root.join(dir))
        .collect();
    while let Some(dir) = open.pop() {
        let Ok(entries) = fs::read_dir(dir) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                // Others' files, fetched to build the console.
                if !path.ends_with("node_modules") {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|ending| endings.iter().any(|wanted| ending == *wanted)) {
                let name = path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "the source was not found: the rules would hold of nothing");
    found
}

/// The text without line comments: prose may speak of any room.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// The identifier at the start.
fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// First segments of every path that begins with `prefix`, groups in braces included: `crate::{net, pool::View}` names two.
fn named_after(code: &str, prefix: &str) -> Vec<String> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices(prefix) {
        let rest = code[at + prefix.len()..].trim_start();
        let Some(group) = rest.strip_prefix('{') else {
            names.push(identifier(rest).to_owned());
            continue;
        };
        let mut depth = 0_usize;
        let mut item_begins = true;
        for (offset, letter) in group.char_indices() {
            match letter {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => item_begins = true,
                _ if depth == 0 && item_begins && !letter.is_whitespace() => {
                    names.push(identifier(&group[offset..]).to_owned());
                    item_begins = false;
                }
                _ => {}
            }
        }
    }
    names
}

/// Whether the code uses the crate: a path that begins with it, or `use` of it.
fn uses_crate(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back();
        let after = &code[at + name.len()..];
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '"')
            && (after.starts_with("::") || code[..at].ends_with("use ") && after.starts_with(';'))
    })
}

/// A room names a room above it, or beside it. Danger: a circle that makes every change touch everything. Expected: none.
#[test]
fn rooms_name_only_the_rooms_below() {
    let mut breaches = Vec::new();
    for (path, text) in sources(&["rs"]) {
        let Some(inside) = path.strip_prefix("src/palm/src/") else { continue };
        let room = inside.split(['/', '.']).next().unwrap_or_default();
        let Some((_, forbidden)) = WALLS.iter().find(|(name, _)| *name == room) else { continue };
        let code = code(&text);
        for name in named_after(&code, "crate::").into_iter().chain(named_after(&code, "super::super::")) {
            if forbidden.contains(&name.as_str()) {
                breaches.push(format!("{path} names {name}"));
            }
        }
    }
    assert!(breaches.is_empty(), "{breaches:#?}");
}

/// The wall test must be able to fail.
#[test]
fn the_wall_test_sees_every_way_to_name_a_room() {
    let code = code("use crate::{pool::{self, View}, net}; // crate::admin\nlet x = crate::s3::run;");
    assert_eq!(named_after(&code, "crate::"), ["pool", "net", "s3"]);
    assert!(uses_crate("use s3s::S3;", "s3s"));
    assert!(uses_crate("let x: &s3s::S3;", "s3s"));
    assert!(!uses_crate("let palm_s3s = \"s3s::x\";", "s3s"));
}

/// An adapter or a library is kept behind one wall. Danger: its types everywhere, so that its next release touches every room.
#[test]
fn foreign_crates_stay_behind_their_wall() {
    let mut breaches = Vec::new();
    for (path, text) in sources(&["rs"]) {
        let code = code(&text);
        for (name, homes) in ONLY_IN {
            if !path.contains("/tests/") && !homes.iter().any(|home| path.starts_with(home)) && uses_crate(&code, name)
            {
                breaches.push(format!("{path} names {name}, which belongs to {homes:?}"));
            }
        }
        // The simulation awaits on an executor of its own, in virtual time; it decides nothing.
        let decides = path.starts_with("src/core/") && !path.starts_with("src/core/src/sim/");
        if decides && code.contains(".await") || path.starts_with("src/core/") && uses_crate(&code, "tokio") {
            breaches.push(format!("{path}: core never awaits"));
        }
        if path.starts_with("backends/") && uses_crate(&code, "tokio") && code.contains("tokio::net") {
            breaches.push(format!("{path}: a backend knows no network"));
        }
    }
    assert!(breaches.is_empty(), "{breaches:#?}");
}

/// A file that outgrows a reader. Expected: split when a second noun appears, long before this length.
#[test]
fn files_stay_readable() {
    let long: Vec<String> = sources(&["rs", "py", "sh"])
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_FILE_LINES)
        .map(|(path, lines)| format!("{path}: {lines} lines"))
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

/// Marks of unfinished work. Expected: none; what is left to do is an issue.
#[test]
fn nothing_unfinished_is_left() {
    let mut found = Vec::new();
    for (path, text) in sources(&["rs", "py", "sh", "toml", "md"]) {
        for (number, line) in text.lines().enumerate() {
            if MARKS.iter().any(|mark| line.contains(mark)) {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// A new room that the map does not show. Expected: ARCHITECTURE.md names every crate and every room of `palm`.
#[test]
fn the_map_shows_every_room() {
    let root = root();
    let map = fs::read_to_string(root.join("ARCHITECTURE.md")).unwrap();
    let mut rooms = vec!["src/core/".to_owned(), "backends/".to_owned(), "s3-tests/".to_owned()];
    for entry in fs::read_dir(root.join("src/palm/src")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.with_extension("rs").is_file() {
            rooms.push(format!("{}.rs", name.trim_end_matches(".rs")));
        } else {
            rooms.push(format!("src/palm/src/{name}/"));
        }
    }
    rooms.retain(|room| room != "lib.rs" && !map.contains(&format!("`{room}`")));
    assert!(rooms.is_empty(), "not in ARCHITECTURE.md: {rooms:?}");
}

/// Links between the documents. Danger: a page that moved. Expected: every relative link leads to a file.
#[test]
fn links_lead_somewhere() {
    let root = root();
    let mut pages: Vec<PathBuf> = ["", "docs", "s3-tests", "examples", "monitoring"]
        .iter()
        .filter_map(|dir| fs::read_dir(root.join(dir)).ok())
        .flat_map(|entries| entries.map(|entry| entry.unwrap().path()))
        .collect();
    pages.retain(|path| path.extension().is_some_and(|ending| ending == "md"));
    let mut broken = Vec::new();
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap_or_default();
            if !file.is_empty() && !file.contains("://") && !page.parent().unwrap().join(file).exists() {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
