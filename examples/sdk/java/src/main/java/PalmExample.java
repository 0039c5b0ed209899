import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import software.amazon.awssdk.core.sync.RequestBody;
import software.amazon.awssdk.services.s3.S3Client;
import software.amazon.awssdk.services.s3.S3Configuration;
import software.amazon.awssdk.services.s3.model.CompletedPart;
import software.amazon.awssdk.services.s3.model.S3Exception;
import software.amazon.awssdk.services.s3.presigner.S3Presigner;

/**
 * The AWS SDK for Java at a PALM pool: put, get, list, upload in parts, a presigned link, a conditional put.
 *
 * <pre>
 * export AWS_ENDPOINT_URL_S3=http://127.0.0.1:9000 AWS_REGION=us-east-1 AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…
 * mvn -q compile exec:java
 * </pre>
 */
public final class PalmExample {
    /** Every part but the last has at least 5 MiB. */
    private static final int PART_BYTES = 5 * 1024 * 1024;

    private static final String BUCKET = "sdk-java";

    public static void main(String[] args) {
        // Path style: the bucket is in the path, as no name server knows BUCKET.127.0.0.1.
        try (S3Client s3 = S3Client.builder().forcePathStyle(true).build()) {
            s3.createBucket(to -> to.bucket(BUCKET));

            String text = "kept by the peers of this network\n";
            s3.putObject(put -> put.bucket(BUCKET).key("greeting.txt").contentType("text/plain"), RequestBody.fromString(text));
            String got = s3.getObjectAsBytes(get -> get.bucket(BUCKET).key("greeting.txt")).asString(StandardCharsets.UTF_8);
            check(got.equals(text), got);

            // Only if there is nothing by that name yet: decided once for the whole pool, whichever peers are asked.
            try {
                s3.putObject(put -> put.bucket(BUCKET).key("greeting.txt").ifNoneMatch("*"), RequestBody.empty());
                check(false, "a conditional put replaced an object");
            } catch (S3Exception refused) {
                check(refused.statusCode() == 412, refused.getMessage());
            }

            uploadInParts(s3, "large.bin");

            List<Long> sizes = s3.listObjectsV2(list -> list.bucket(BUCKET)).contents().stream().map(object -> object.size()).toList();
            check(sizes.equals(List.of((long) text.length(), PART_BYTES + 1000L)), sizes.toString());
        }
        // Whoever has this link reads the object for an hour, without a key. The presigner is told the endpoint in the code.
        S3Configuration pathStyle = S3Configuration.builder().pathStyleAccessEnabled(true).build();
        URI endpoint = URI.create(System.getenv("AWS_ENDPOINT_URL_S3"));
        try (S3Presigner presigner = S3Presigner.builder().endpointOverride(endpoint).serviceConfiguration(pathStyle).build()) {
            var link = presigner.presignGetObject(sign -> sign
                .signatureDuration(Duration.ofHours(1)).getObjectRequest(get -> get.bucket(BUCKET).key("greeting.txt")));
            System.out.println("ok " + link.url());
        }
    }

    private static void uploadInParts(S3Client s3, String key) {
        String upload = s3.createMultipartUpload(create -> create.bucket(BUCKET).key(key)).uploadId();
        List<CompletedPart> parts = new ArrayList<>();
        for (int size : new int[] {PART_BYTES, 1000}) {
            int number = parts.size() + 1;
            String etag = s3.uploadPart(
                part -> part.bucket(BUCKET).key(key).uploadId(upload).partNumber(number), RequestBody.fromBytes(new byte[size])).eTag();
            parts.add(CompletedPart.builder().partNumber(number).eTag(etag).build());
        }
        s3.completeMultipartUpload(complete -> complete
            .bucket(BUCKET).key(key).uploadId(upload).multipartUpload(all -> all.parts(parts)));
    }

    private static void check(boolean holds, String otherwise) {
        if (!holds) {
            throw new IllegalStateException(otherwise);
        }
    }

    private PalmExample() {}
}
