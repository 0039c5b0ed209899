//! The AWS SDK for Rust at a PALM pool: put, get, list, upload in parts, a presigned link, a conditional put.
//!
//!     export AWS_ENDPOINT_URL_S3=http://127.0.0.1:9000 AWS_REGION=us-east-1 AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…
//!     cargo run

use std::error::Error;
use std::time::Duration;

use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::presigning::PresigningConfig;
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};

/// Every part but the last has at least 5 MiB.
const PART_BYTES: usize = 5 * 1024 * 1024;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // Plain HTTP. For HTTPS leave this client away, and `default-features = false` of aws-config in Cargo.toml too.
    let http = aws_smithy_http_client::Builder::new().build_http();
    let settings = aws_config::from_env().http_client(http).load().await;
    // Path style: the bucket is in the path, as no name server knows BUCKET.127.0.0.1.
    let s3 = aws_sdk_s3::Client::from_conf(aws_sdk_s3::config::Builder::from(&settings).force_path_style(true).build());

    let bucket = "sdk-rust";
    s3.create_bucket().bucket(bucket).send().await?;

    let text = "kept by the peers of this network\n";
    s3.put_object()
        .bucket(bucket)
        .key("greeting.txt")
        .content_type("text/plain")
        .body(ByteStream::from_static(text.as_bytes()))
        .send()
        .await?;
    let got = s3.get_object().bucket(bucket).key("greeting.txt").send().await?.body.collect().await?.into_bytes();
    assert_eq!(got, text);

    // Only if there is nothing by that name yet: decided once for the whole pool, whichever peers are asked.
    let again = s3.put_object().bucket(bucket).key("greeting.txt").if_none_match("*").send().await;
    assert_eq!(
        again.err().and_then(|refused| refused.code().map(str::to_owned)).as_deref(),
        Some("PreconditionFailed")
    );

    let upload = s3.create_multipart_upload().bucket(bucket).key("large.bin").send().await?;
    let upload_id = upload.upload_id().ok_or("no upload id")?;
    let mut parts = Vec::new();
    for (number, size) in [(1, PART_BYTES), (2, 1000)] {
        let body = ByteStream::from(vec![7; size]);
        let part = s3
            .upload_part()
            .bucket(bucket)
            .key("large.bin")
            .upload_id(upload_id)
            .part_number(number)
            .body(body)
            .send()
            .await?;
        parts.push(CompletedPart::builder().part_number(number).set_e_tag(part.e_tag).build());
    }
    let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
    s3.complete_multipart_upload()
        .bucket(bucket)
        .key("large.bin")
        .upload_id(upload_id)
        .multipart_upload(parts)
        .send()
        .await?;

    let listed = s3.list_objects_v2().bucket(bucket).send().await?;
    let names: Vec<_> = listed.contents().iter().filter_map(|object| Some((object.key()?, object.size()?))).collect();
    assert_eq!(names, [("greeting.txt", 34), ("large.bin", 5_243_880)]);

    // Whoever has this link reads the object for an hour, without a key.
    let link = s3
        .get_object()
        .bucket(bucket)
        .key("greeting.txt")
        .presigned(PresigningConfig::expires_in(Duration::from_secs(3600))?)
        .await?;

    println!("ok {}", link.uri());
    Ok(())
}
