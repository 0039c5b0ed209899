use std::io::Write;

use super::*;

fn none() -> Vec<(String, String)> {
    Vec::new()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn error(text: &str) -> String {
    let file = file(text);
    let message = load(Some(file.path()), none(), Vec::new()).unwrap_err().to_string();
    message.replace(&file.path().display().to_string(), "FILE")
}

/// The file, a variable and a flag disagree: the flag wins over the variable, the variable over the file, the file
/// over the default, and `palm config --print` tells which it was. Otherwise nobody could tell why a peer listens
/// where it does.
#[test]
fn later_layers_win_and_say_so() {
    let file = file("name = 'from-file'\ns3.address = '127.0.0.1:1'\n[log]\nlevel = 'debug'\n");
    let variables = [
        ("PALM_S3__ADDRESS", "127.0.0.1:2"),
        ("PALM_NAME", "from-variable"),
        ("PALM_DISCOVERY__PEERS", "a:1, b:2"),
        ("PALM_DISCOVERY__MDNS", "false"),
        ("PALM_BACKEND__MAX_BYTES", "2GiB"),
        ("PALM_POOL__MAX_MEMBERS", "7"),
        ("PALM_SECRET_KEY", "not a setting"),
        ("PALM_TOOLS", "a build script's"),
        ("PATH", "/bin"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let flags = vec![Given { name: "s3.address", values: vec!["127.0.0.1:3".into()], origin: "--s3".into() }];
    let loaded = load(Some(file.path()), variables, flags).unwrap();
    let settings = &loaded.settings;
    assert_eq!(settings.s3.address, "127.0.0.1:3".parse().unwrap());
    assert_eq!(settings.name, "from-variable");
    assert_eq!(settings.log.level, "debug");
    assert_eq!(settings.discovery.peers, ["a:1", "b:2"]);
    assert!(!settings.discovery.mdns);
    assert_eq!(settings.backend.max_bytes, Some(Size(2 << 30)));
    assert_eq!(settings.pool.max_members, 7);
    assert_eq!(settings.quic.address, "0.0.0.0:5000".parse().unwrap());

    let origin = |name: &str| loaded.origins.iter().find(|(known, _, _)| *known == name).unwrap().2.clone();
    assert_eq!(origin("s3.address"), "--s3");
    assert_eq!(origin("name"), "PALM_NAME");
    assert_eq!(origin("log.level"), format!("{}:4", file.path().display()));
    assert_eq!(origin("quic.address"), "default");
}

/// A wrong setting that is passed over shows only when it is too late (a full disk, an open port). It must stop the
/// start, with the line and what was probably meant.
#[test]
fn wrong_settings_stop_the_start_and_say_where() {
    assert_eq!(error("\n[s3]\nadress = 'x'\n"), "FILE:3: unknown setting s3.adress; did you mean s3.address?");
    assert_eq!(error("nme = 'x'"), "FILE:1: unknown setting nme; did you mean name?");
    assert_eq!(error("[backends]\nurl = 'x'"), "FILE:1: unknown setting backends; did you mean backend.url?");
    let message = error("[s3]\n\naddress = 'nowhere'\n");
    assert!(message.starts_with("FILE:3: s3.address"), "{message}");
    let message = error("[backend]\nmax_bytes = '5 elephants'\n");
    assert!(message.starts_with("FILE:2: backend.max_bytes"), "{message}");
    let message = error("[traffic]\nquiet = '11pm-7am'\n");
    assert!(message.contains("23:00-07:00"), "{message}");
    assert!(error("[traffic]\nquiet = '23:00-07:00'\n").contains("belong together"));
    let message = error("[discovery]\nmdns = 'perhaps'\n");
    assert!(message.starts_with("FILE:2: discovery.mdns"), "{message}");
    let message = error("[pool]\npolicy = '5-of-3'\n");
    assert!(message.starts_with("FILE:2: pool.policy") && message.contains("5-of-3"), "{message}");
    let message = error("[pool]\nstorage_classes = ['STANDARD_IA=5-of-3']\n");
    assert!(message.contains("pool.storage_classes") && message.contains("5-of-3"), "{message}");
    let message = error("[pool]\nmax_members = 65\n");
    assert!(message.contains("pool.max_members: 65 is not within 1 to 64"), "{message}");
    assert!(error("[s3\n").contains("line 1"), "{}", error("[s3\n"));

    let variables = [("PALM_S3_ADDRESS".to_owned(), "x".to_owned())];
    let message = load(None, variables, Vec::new()).unwrap_err().to_string();
    assert_eq!(message, "environment: unknown setting PALM_S3_ADDRESS; did you mean PALM_S3__ADDRESS?");
    let variables = [("PALM_S3__ADDRESS".to_owned(), "x".to_owned())];
    let message = load(None, variables, Vec::new()).unwrap_err().to_string();
    assert!(message.starts_with("PALM_S3__ADDRESS: s3.address"), "{message}");
    let message = load(Some(Path::new("/nowhere/palm.toml")), none(), Vec::new()).unwrap_err().to_string();
    assert!(message.starts_with("/nowhere/palm.toml: "), "{message}");
}

/// The example is what people copy: each of its settings must exist, each setting must be in it, and what it says
/// is the default must be.
#[test]
fn the_example_is_complete_and_true() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/palm.toml");
    let text = std::fs::read_to_string(&example).unwrap();
    // Settings stand commented out with their default.
    let mut uncommented = String::new();
    for line in text.lines() {
        let setting = line.strip_prefix("#").filter(|rest| !rest.starts_with(' ') && rest.contains('='));
        uncommented.push_str(setting.unwrap_or(line));
        uncommented.push('\n');
    }
    let table: toml::Table = uncommented.parse().unwrap();
    for &(name, _) in NAMES {
        let (section, key) = name.split_once('.').unwrap_or(("", name));
        let has = if section.is_empty() { table.contains_key(key) } else { table[section].get(key).is_some() };
        assert!(has, "{name} is missing from the example");
    }
    load(Some(&example), none(), Vec::new()).unwrap();
    let all = file(&uncommented);
    let loaded = load(Some(all.path()), none(), Vec::new());
    // One url excludes several, and each the two settings that go with the default backend: complaints that are right.
    assert!(loaded.unwrap_err().to_string().contains("backend.urls"));
    let without = |words: &[&str]| {
        let kept = uncommented.lines().filter(|line| !words.iter().any(|word| line.starts_with(word)));
        file(&kept.collect::<Vec<_>>().join("\n"))
    };
    for words in [&["url "][..], &["urls "]] {
        let loaded = load(Some(without(words).path()), none(), Vec::new());
        assert!(loaded.unwrap_err().to_string().contains("carries its own"));
    }
    let all = without(&["url"]);
    let settings = load(Some(all.path()), none(), Vec::new()).unwrap().settings;
    let defaults = Settings::default();
    assert_eq!((&settings.s3.address, &settings.s3.region), (&defaults.s3.address, &defaults.s3.region));
    assert_eq!((&settings.quic, &settings.admin), (&defaults.quic, &defaults.admin));
    assert_eq!((&settings.log.format, &settings.log.level), (&defaults.log.format, &defaults.log.level));
    assert_eq!(settings.pool.max_members, defaults.pool.max_members);
    assert_eq!(settings.pool.policy, defaults.pool.policy);
}

/// The list of names stands beside the struct; a setting missing from it would be refused though it exists.
#[test]
fn the_names_are_the_struct() {
    let mut full = Settings::default();
    full.s3.tls_address = Some(full.s3.address);
    full.s3.tls_certificate = Some("x".into());
    full.s3.tls_key = Some("x".into());
    full.backend.url = Some("x".into());
    full.backend.max_bytes = Some(Size(1));
    full.backend.reserve = Some(Size(1));
    full.log.audit = Some("x".into());
    let (size, hours) = (Some(Size(1)), Some(Hours(0, 1)));
    (full.repair.bandwidth, full.repair.quiet, full.repair.quiet_bandwidth) = (size, hours, size);
    (full.traffic.bandwidth, full.traffic.quiet, full.traffic.quiet_bandwidth) = (size, hours, size);
    let table = toml::Table::try_from(&full).unwrap();
    let mut names = Vec::new();
    for (key, value) in &table {
        match value.as_table() {
            Some(inner) => names.extend(inner.keys().map(|name| format!("{key}.{name}"))),
            None => names.push(key.clone()),
        }
    }
    names.sort();
    let mut known: Vec<&str> = NAMES.iter().map(|&(name, _)| name).collect();
    known.sort_unstable();
    assert_eq!(names, known);
}

#[test]
fn sizes_carry_units() {
    assert_eq!("12 KiB".parse(), Ok(Size(12 << 10)));
    assert_eq!("3TB".parse(), Ok(Size(3_000_000_000_000)));
    assert!("1.5GB".parse::<Size>().is_err());
    assert!("99999999TiB".parse::<Size>().is_err());
}
