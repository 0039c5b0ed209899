//! User metadata that is given several times is one value, its parts in order with commas between
//! (<https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html>). A signature covers it in that form as well; s3s
//! refuses headers that come twice.

use http::{HeaderMap, HeaderName, HeaderValue};

/// What its headers begin with.
const PREFIX: &str = "x-amz-meta-";

/// Makes one header of those of each name.
pub fn combine(headers: &mut HeaderMap) {
    let comes_twice = |name: &&HeaderName| headers.get_all(*name).iter().nth(1).is_some();
    let names = headers.keys().filter(|name| name.as_str().starts_with(PREFIX));
    let several: Vec<HeaderName> = names.filter(comes_twice).cloned().collect();
    for name in several {
        let values: Vec<&[u8]> = headers.get_all(&name).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(value) = HeaderValue::from_bytes(&values.join(b",".as_slice())) {
            headers.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scenario: a client gives a name twice, and other headers twice. Expectation: the name once with both values, the rest as it came.
    #[test]
    fn only_metadata_is_combined() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("x-amz-meta-a", "2"), ("x-amz-meta-a", "1"), ("x-amz-meta-b", "x"), ("range", "y"), ("range", "z")]
        {
            headers.append(name, HeaderValue::from_static(value));
        }
        combine(&mut headers);
        let values = |name| headers.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(values("x-amz-meta-a"), ["2,1"]);
        assert_eq!(values("x-amz-meta-b"), ["x"]);
        assert_eq!(values("range"), ["y", "z"]);
    }
}
