use proptest::prelude::*;

use super::*;

fn visit(key: &str) -> Visit<'_> {
    Visit { key, host: "site.example.com", protocol: Protocol::Http }
}

fn site(rules: Vec<Rule>) -> Website {
    let (index, error) = ("index.html".to_owned(), Some("error.html".to_owned()));
    Website::Serve { index, error, rules }.validated().expect("valid")
}

#[expect(clippy::unnecessary_wraps, reason = "fields of rules are optional")]
fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// <https://docs.aws.amazon.com/AmazonS3/latest/userguide/IndexDocumentSupport.html>.
#[test]
fn folders_are_answered_by_their_index() {
    let site = site(vec![]);
    assert_eq!(site.route(visit("")), Route::Serve("index.html".to_owned()));
    assert_eq!(site.route(visit("photos/")), Route::Serve("photos/index.html".to_owned()));
    assert_eq!(site.route(visit("photos")), Route::Serve("photos".to_owned()));
    assert_eq!(site.folder_index(visit("photos")).as_deref(), Some("photos/index.html"));
    assert_eq!(Website::to_folder(visit("my photos")), Redirect { code: 302, location: "/my%20photos/".to_owned() });
    assert_eq!(site.after_failure(visit("x"), 404), Fallback::ErrorDocument("error.html".to_owned()));
    assert_eq!(site.after_failure(visit("x"), 503), Fallback::Error);
}

/// The examples of <https://docs.aws.amazon.com/AmazonS3/latest/userguide/how-to-page-redirect.html>.
#[test]
fn routing_rules_redirect_as_in_the_examples() {
    let renamed = Rule { key_prefix: text("docs/"), replace_prefix: text("documents/"), ..Rule::default() };
    let images = Rule { key_prefix: text("images/"), replace_key: text("folderdeleted.html"), ..Rule::default() };
    let missing = Rule {
        error_code: Some(404),
        host: text("ec2.example.com"),
        replace_prefix: text("report-404/"),
        protocol: Some(Protocol::Https),
        code: Some(302),
        ..Rule::default()
    };
    let site = site(vec![renamed, images, missing]);
    let redirect = |code, location: &str| Redirect { code, location: location.to_owned() };
    assert_eq!(
        site.route(visit("docs/a b")),
        Route::Redirect(redirect(301, "http://site.example.com/documents/a%20b"))
    );
    assert_eq!(
        site.route(visit("images/1")),
        Route::Redirect(redirect(301, "http://site.example.com/folderdeleted.html"))
    );
    assert_eq!(site.route(visit("x")), Route::Serve("x".to_owned()), "that rule is for errors");
    let reported = redirect(302, "https://ec2.example.com/report-404/x");
    assert_eq!(site.after_failure(visit("x"), 404), Fallback::Redirect(reported));
    let all = Website::RedirectAll { host: "example.com".to_owned(), protocol: Some(Protocol::Https) };
    assert_eq!(all.route(visit("a/b")), Route::Redirect(redirect(301, "https://example.com/a/b")));
}

#[test]
fn wrong_configurations_are_refused() {
    let with = |rule: Rule| {
        let rules = vec![rule];
        Website::Serve { index: "i".to_owned(), error: None, rules }.validated().expect_err("wrong").code
    };
    assert_eq!(with(Rule::default()), "MalformedXML");
    assert_eq!(with(Rule { replace_key: text("a"), replace_prefix: text("b"), ..Rule::default() }), "InvalidRequest");
    assert_eq!(with(Rule { code: Some(200), ..Rule::default() }), "InvalidRequest");
    assert_eq!(with(Rule { code: Some(301), error_code: Some(200), ..Rule::default() }), "InvalidRequest");
    assert_eq!(with(Rule { host: text("a\r\nb"), ..Rule::default() }), "InvalidRequest");
    let index = |index: &str| Website::Serve { index: index.to_owned(), error: None, rules: vec![] }.validated();
    assert_eq!(index("").expect_err("empty").code, "InvalidArgument");
    assert_eq!(index("a/b").expect_err("a path").code, "InvalidArgument");
    let many = Rule { code: Some(301), ..Rule::default() };
    let rules = vec![many; RULES_MAX + 1];
    assert!(Website::Serve { index: "i".to_owned(), error: None, rules }.validated().is_err());
    assert_eq!(Protocol::parse("ftp").expect_err("unknown").code, "InvalidRequest");
    assert_eq!(check_object_redirect("ftp://x").expect_err("unknown").code, "InvalidRedirectLocation");
    assert!(check_object_redirect("/a\r\nSet-Cookie: x").is_err());
    assert!(check_object_redirect("/another-page.html").is_ok());
}

proptest! {
    /// Danger: a key with a line break in it adds headers to the answer. Expectation: a `Location` is one line of ASCII.
    #[test]
    fn a_location_is_one_line(key in "\\PC{0,20}[\r\n]{0,2}\\PC{0,20}") {
        let rule = Rule { replace_prefix: text("x/"), ..Rule::default() };
        if let Route::Redirect(redirect) = site(vec![rule]).route(visit(&key)) {
            prop_assert!(redirect.location.bytes().all(|byte| byte.is_ascii_graphic()));
        }
    }
}
