//! AWS's own sentences for errors. Where nobody has said more, s3s tells those of the reference
//! (<https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>), which are descriptions for programmers; what the service
//! answers is shorter, and there are clients that compare it.

use palm_core::s3::MALFORMED_XML;
use s3s::S3ErrorCode;

use super::server::escape;

/// By code.
const SENTENCES: [(&str, &str); 19] = [
    ("BucketAlreadyOwnedByYou", "Your previous request to create the named bucket succeeded and you already own it."),
    ("BucketNotEmpty", "The bucket you tried to delete is not empty"),
    ("EntityTooLarge", "Your proposed upload exceeds the maximum allowed size"),
    ("EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size"),
    ("InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records."),
    ("InvalidDigest", "The Content-MD5 you specified was invalid."),
    (
        "InvalidPart",
        "One or more of the specified parts could not be found.  The part may not have been uploaded, or the specified \
         entity tag may not match the part's entity tag.",
    ),
    ("InvalidPartOrder", "The list of parts was not in ascending order. Parts must be ordered by part number."),
    ("InvalidRange", "The requested range is not satisfiable"),
    ("InvalidStorageClass", "The storage class you specified is not valid"),
    ("KeyTooLongError", "Your key is too long"),
    ("MalformedXML", MALFORMED_XML),
    ("MetadataTooLarge", "Your metadata headers exceed the maximum allowed metadata size"),
    ("MissingRequestBodyError", "Request Body is empty"),
    ("NoSuchBucket", "The specified bucket does not exist"),
    ("NoSuchBucketPolicy", "The bucket policy does not exist"),
    (
        "NoSuchUpload",
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.",
    ),
    ("PreconditionFailed", "At least one of the pre-conditions you specified did not hold"),
    (
        "SignatureDoesNotMatch",
        "The request signature we calculated does not match the signature you provided. Check your key and signing method.",
    ),
];

/// An error's XML with the sentence of its code instead of s3s's.
pub fn reword(code: &str, xml: &str) -> Option<String> {
    let (_, sentence) = SENTENCES.iter().find(|(of, _)| *of == code)?;
    let default = S3ErrorCode::from_bytes(code.as_bytes())?.default_message()?;
    let message = |text: &str| format!("<Message>{}</Message>", escape(text));
    Some(xml.replacen(&message(default), &message(sentence), 1))
}

#[cfg(test)]
mod tests {
    use s3s::S3Error;

    use super::super::server::error_response;
    use super::*;

    /// Scenario: errors that say no more than their code. Danger: s3s words or escapes its defaults in another way after an update, and
    /// clients that compare sentences fail. Expectation: each is told in AWS's words, and in ours where we have said more.
    #[test]
    fn each_code_is_told_in_its_words() {
        for (code, sentence) in SENTENCES {
            let known = S3ErrorCode::from_bytes(code.as_bytes()).expect("a code of S3");
            let told = |error| {
                let answer = error_response(error);
                String::from_utf8(answer.body().bytes().expect("whole").to_vec()).expect("text")
            };
            let reworded = reword(code, &told(S3Error::new(known.clone()))).expect("has words");
            assert!(reworded.contains(&format!("<Message>{}</Message>", escape(sentence))), "{reworded}");
            let ours = told(S3Error::with_message(known, "more"));
            assert_eq!(reword(code, &ours), Some(ours.clone()));
        }
        assert_eq!(reword("NoSuchKey", "<Message>The specified key does not exist.</Message>"), None);
    }
}
