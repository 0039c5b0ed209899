//! Forms as browsers and scripts send them, against the example that AWS publishes.

use s3s::auth::SimpleAuth;

use super::*;

const BOUNDARY: &str = "9431149156168";
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/sigv4-post-example.html>
const KEY: &str = "AKIAIOSFODNN7EXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
const POLICY: &str = concat!(
    "eyAiZXhwaXJhdGlvbiI6ICIyMDE1LTEyLTMwVDEyOjAwOjAwLjAwMFoiLA0KICAiY29uZGl0aW9ucyI6IFsNCiAgICB7ImJ1Y2tldCI6ICJzaWd2NGV4YW1w",
    "bGVidWNrZXQifSwNCiAgICBbInN0YXJ0cy13aXRoIiwgIiRrZXkiLCAidXNlci91c2VyMS8iXSwNCiAgICB7ImFjbCI6ICJwdWJsaWMtcmVhZCJ9LA0KICAg",
    "IHsic3VjY2Vzc19hY3Rpb25fcmVkaXJlY3QiOiAiaHR0cDovL3NpZ3Y0ZXhhbXBsZWJ1Y2tldC5zMy5hbWF6b25hd3MuY29tL3N1Y2Nlc3NmdWxfdXBsb2Fk",
    "Lmh0bWwifSwNCiAgICBbInN0YXJ0cy13aXRoIiwgIiRDb250ZW50LVR5cGUiLCAiaW1hZ2UvIl0sDQogICAgeyJ4LWFtei1tZXRhLXV1aWQiOiAiMTQzNjUx",
    "MjM2NTEyNzQifSwNCiAgICB7IngtYW16LXNlcnZlci1zaWRlLWVuY3J5cHRpb24iOiAiQUVTMjU2In0sDQogICAgWyJzdGFydHMtd2l0aCIsICIkeC1hbXot",
    "bWV0YS10YWciLCAiIl0sDQoNCiAgICB7IngtYW16LWNyZWRlbnRpYWwiOiAiQUtJQUlPU0ZPRE5ON0VYQU1QTEUvMjAxNTEyMjkvdXMtZWFzdC0xL3MzL2F3",
    "czRfcmVxdWVzdCJ9LA0KICAgIHsieC1hbXotYWxnb3JpdGhtIjogIkFXUzQtSE1BQy1TSEEyNTYifSwNCiAgICB7IngtYW16LWRhdGUiOiAiMjAxNTEyMjlU",
    "MDAwMDAwWiIgfQ0KICBdDQp9",
);
const SIGNATURE: &str = "8afdbf4008c03f22c2cd3cdb72e4afbb1f6a588f3255ac628749a66d7f09699e";

fn form(fields: &[(&str, &str)]) -> Form {
    Form { fields: fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect() }
}

fn example() -> Vec<(&'static str, &'static str)> {
    vec![
        ("policy", POLICY),
        ("x-amz-algorithm", "AWS4-HMAC-SHA256"),
        ("x-amz-credential", "AKIAIOSFODNN7EXAMPLE/20151229/us-east-1/s3/aws4_request"),
        ("x-amz-date", "20151229T000000Z"),
        ("x-amz-signature", SIGNATURE),
    ]
}

async fn verify(fields: &[(&str, &str)]) -> Result<Option<String>, String> {
    let keys = SimpleAuth::from_single(KEY, SECRET);
    let signer = form(fields).verify(&keys).await;
    signer
        .map(|signer| signer.map(|signer| signer.credentials.access_key))
        .map_err(|told| told.code().as_str().to_owned())
}

/// Scenario: AWS's published example, then each way to spoil it. Danger: anybody uploads in the signer's name.
/// Expectation: only the untouched form is signed, and nothing is taken for anonymous that claims to be signed.
#[tokio::test]
async fn only_the_signer_vouches() {
    let example = example();
    assert_eq!(verify(&example).await, Ok(Some(KEY.to_owned())));
    let changed = |name: &'static str, value: Option<&'static str>| {
        let kept = example.iter().copied().filter(|(known, _)| *known != name);
        kept.chain(value.map(|value| (name, value))).collect::<Vec<_>>()
    };
    let refused = |code: &str| Err(code.to_owned());
    let zeros = "0000000000000000000000000000000000000000000000000000000000000000";
    assert_eq!(verify(&changed("x-amz-signature", Some(zeros))).await, refused("SignatureDoesNotMatch"));
    assert_eq!(verify(&changed("x-amz-signature", Some("short"))).await, refused("SignatureDoesNotMatch"));
    assert_eq!(verify(&changed("policy", Some("e30="))).await, refused("SignatureDoesNotMatch"));
    assert_eq!(verify(&changed("x-amz-date", Some("20151230T000000Z"))).await, refused("InvalidArgument"));
    for name in ["x-amz-signature", "policy", "x-amz-date", "x-amz-credential", "x-amz-algorithm"] {
        assert_eq!(verify(&changed(name, None)).await, refused("InvalidArgument"), "{name}");
    }
    assert_eq!(verify(&[("key", "a"), ("acl", "public-read")]).await, Ok(None));
}

/// Scenario: a script signs as before 2014, HMAC-SHA1 over the policy. Expectation: taken when right, as AWS does.
#[tokio::test]
async fn the_older_signature_is_taken() {
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, SECRET.as_bytes());
    let signature = BASE64.encode(hmac::sign(&key, b"e30=").as_ref());
    let fields = |signature| [("policy", "e30="), ("awsaccesskeyid", KEY), ("signature", signature)];
    assert_eq!(verify(&fields(&signature)).await, Ok(Some(KEY.to_owned())));
    assert_eq!(verify(&fields("bm8=")).await, Err("SignatureDoesNotMatch".to_owned()));
    assert_eq!(verify(&[("policy", "e30="), ("awsaccesskeyid", KEY)]).await, Err("InvalidArgument".to_owned()));
}

/// Scenario: fields that name headers a PUT understands in other ways. Danger: a form signed for an upload copies,
/// renames or signs. Expectation: only what belongs to an object becomes a header.
#[test]
fn only_what_belongs_to_an_object_is_passed_on() {
    let tagging = "<Tagging><TagSet><Tag><Key>a b</Key><Value>c=d</Value></Tag></TagSet></Tagging>";
    let fields = [
        ("acl", "public-read"),
        ("tagging", tagging),
        ("content-type", "image/png"),
        ("x-amz-meta-uuid", "1"),
        ("x-amz-copy-source", "/other/secret"),
        ("x-amz-rename-source", "/secret"),
        ("x-amz-decoded-content-length", "1"),
        ("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER"),
        ("authorization", "AWS4"),
        ("content-length", "1"),
        ("host", "elsewhere"),
    ];
    let headers = form(&fields).headers().expect("headers");
    let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["content-type", "x-amz-acl", "x-amz-meta-uuid", "x-amz-tagging"]);
    assert_eq!(headers["x-amz-tagging"], "a%20b=c%3Dd");
    let broken = form(&[("x-amz-meta-a", "line\r\nbreak")]).headers().expect_err("refused");
    assert_eq!(broken.code().as_str(), "InvalidArgument");
}

#[test]
fn a_key_takes_the_name_of_its_file() {
    for (name, key) in [("me.jpg", "user/me.jpg"), ("C:\\Files\\me.jpg", "user/me.jpg"), ("/tmp/a/b", "user/b")] {
        let mut form = form(&[("key", "user/${filename}")]);
        form.name_file(name).expect("a key");
        assert_eq!(form.key(), key);
    }
    assert_eq!(form(&[]).name_file("x").expect_err("no key").code().as_str(), "InvalidArgument");
}

#[test]
fn a_redirection_keeps_its_own_query() {
    let to = |to| redirection(to, "b", "k/1", "\"tag\"");
    assert_eq!(to("http://h/p").as_deref(), Some("http://h/p?bucket=b&key=k%2F1&etag=%22tag%22"));
    assert_eq!(to("https://h/?a=b").as_deref(), Some("https://h/?a=b&bucket=b&key=k%2F1&etag=%22tag%22"));
    for other in ["", "/path", "javascript:alert(1)", "http://h/\r\nx: y"] {
        assert_eq!(to(other), None, "{other}");
    }
}

fn multipart(parts: &[(&str, &str)], closing: &str) -> (HeaderMap, Body) {
    let part = |(name, value): &(&str, &str)| {
        format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"f\"\r\n\r\n{value}\r\n")
    };
    let text = format!("{}--{BOUNDARY}{closing}", parts.iter().map(part).collect::<String>());
    let mut headers = HeaderMap::new();
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    headers.insert(CONTENT_TYPE, HeaderValue::try_from(kind).expect("header"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(text.len()));
    (headers, Body::from(text))
}

async fn read_code(parts: &[(&str, &str)], closing: &str) -> String {
    let (headers, body) = multipart(parts, closing);
    let told = parts::read(&headers, body).await.err().expect("refused");
    told.code().as_str().to_owned()
}

/// Scenario: names in any case, an empty file, a file that contains line ends. Expectation: the fields in order and
/// exactly the file's bytes, whose number is known before they are read.
#[tokio::test]
async fn a_form_is_its_fields_and_its_file() {
    for content in ["", "bar", "line\r\n--line\r\n"] {
        let (headers, body) = multipart(&[("kEy", "foo"), ("pOLICy", ""), ("file", content)], "--\r\n");
        let (form, file) = parts::read(&headers, body).await.expect("a form");
        assert_eq!(form.fields, [("key".to_owned(), "foo".to_owned()), ("policy".to_owned(), String::new())]);
        assert_eq!(file.length, content.len() as u64);
        let bytes = http_body_util::BodyExt::collect(file.body).await.expect("the file").to_bytes();
        assert_eq!(bytes, content.as_bytes());
    }
}

/// Scenario: forms without an end, a file or a key, and with too much before the file. Danger: memory, or a file that
/// swallows the next part. Expectation: each is refused by its name, and a file that is not last fails as it is read.
#[tokio::test]
async fn what_is_no_form_is_refused() {
    assert_eq!(read_code(&[("key", "foo")], "--\r\n").await, "InvalidArgument");
    assert_eq!(read_code(&[("acl", "private")], "--\r\n").await, "InvalidArgument");
    assert_eq!(read_code(&[("key", "foo")], "").await, "IncompleteBody");
    let large = "x".repeat(70 << 10);
    assert_eq!(read_code(&[("key", &large), ("file", "")], "--\r\n").await, "MaxPostPreDataLengthExceededError");
    let many = vec![("x-ignore-a", "1"); 101];
    assert_eq!(read_code(&many, "--\r\n").await, "MaxPostPreDataLengthExceededError");
    let (headers, body) = multipart(&[("key", "foo"), ("file", "bar"), ("late", "field")], "--\r\n");
    let (_, file) = parts::read(&headers, body).await.expect("fields");
    assert!(http_body_util::BodyExt::collect(file.body).await.is_err(), "the file must be last");
}

#[test]
fn forms_are_for_buckets() {
    let target_of = |uri: &str, place: &Place, bucket: Option<&str>| {
        let request = Request::builder().method(Method::POST).uri(uri);
        let request = request.header(CONTENT_TYPE, "Multipart/Form-Data; boundary=x").body(()).expect("request");
        target(&request, place, bucket).map(|target| target.map_err(|told| told.code().as_str().to_owned()))
    };
    let host = Place::Bucket("b".into());
    assert_eq!(target_of("/b", &Place::Path, Some("b")), Some(Ok("b".into())));
    assert_eq!(target_of("/b/", &Place::Path, Some("b")), Some(Ok("b".into())));
    assert_eq!(target_of("/", &host, Some("b")), Some(Ok("b".into())));
    let refused = Some(Err("MethodNotAllowed".to_owned()));
    assert_eq!(target_of("/b/key", &Place::Path, Some("b")), refused);
    assert_eq!(target_of("/key", &host, Some("b")), refused);
    assert_eq!(target_of("/", &Place::Path, None), refused);
    let put = Request::builder().method(Method::PUT).uri("/b").body(()).expect("request");
    assert!(target(&put, &Place::Path, Some("b")).is_none());
}
