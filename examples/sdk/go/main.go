// The AWS SDK for Go at a PALM pool: put, get, list, upload in parts, a presigned link, a conditional put.
//
//	export AWS_ENDPOINT_URL_S3=http://127.0.0.1:9000 AWS_REGION=us-east-1 AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…
//	go run .
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/smithy-go"
)

// Every part but the last has at least 5 MiB.
const partBytes = 5 << 20

func main() {
	if err := run(context.Background()); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context) error {
	settings, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return err
	}
	// Path style: the bucket is in the path, as no name server knows BUCKET.127.0.0.1.
	client := s3.NewFromConfig(settings, func(o *s3.Options) { o.UsePathStyle = true })
	bucket, greeting, large := aws.String("sdk-go"), aws.String("greeting.txt"), aws.String("large.bin")
	if _, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: bucket}); err != nil {
		return err
	}

	text := "kept by the peers of this network\n"
	put := &s3.PutObjectInput{Bucket: bucket, Key: greeting, Body: strings.NewReader(text), ContentType: aws.String("text/plain")}
	if _, err := client.PutObject(ctx, put); err != nil {
		return err
	}
	got, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: greeting})
	if err != nil {
		return err
	}
	defer got.Body.Close()
	if read, err := io.ReadAll(got.Body); err != nil || string(read) != text {
		return fmt.Errorf("read %q: %w", read, err)
	}

	// Only if there is nothing by that name yet: decided once for the whole pool, whichever peers are asked.
	_, err = client.PutObject(ctx, &s3.PutObjectInput{Bucket: bucket, Key: greeting, IfNoneMatch: aws.String("*")})
	var refused smithy.APIError
	if !errors.As(err, &refused) || refused.ErrorCode() != "PreconditionFailed" {
		return fmt.Errorf("a conditional put was not refused: %w", err)
	}

	if err := uploadInParts(ctx, client, bucket, large); err != nil {
		return err
	}

	listed, err := client.ListObjectsV2(ctx, &s3.ListObjectsV2Input{Bucket: bucket})
	if err != nil {
		return err
	}
	if len(listed.Contents) != 2 || *listed.Contents[1].Size != partBytes+1000 {
		return fmt.Errorf("listed %v", listed.Contents)
	}

	// Whoever has this link reads the object for an hour, without a key.
	link, err := s3.NewPresignClient(client).PresignGetObject(ctx, &s3.GetObjectInput{Bucket: bucket, Key: greeting}, s3.WithPresignExpires(time.Hour))
	if err != nil {
		return err
	}
	fmt.Println("ok", link.URL)
	return nil
}

func uploadInParts(ctx context.Context, client *s3.Client, bucket, key *string) error {
	upload, err := client.CreateMultipartUpload(ctx, &s3.CreateMultipartUploadInput{Bucket: bucket, Key: key})
	if err != nil {
		return err
	}
	var parts []types.CompletedPart
	for i, size := range []int{partBytes, 1000} {
		number := aws.Int32(int32(i + 1))
		part, err := client.UploadPart(ctx, &s3.UploadPartInput{
			Bucket: bucket, Key: key, UploadId: upload.UploadId, PartNumber: number, Body: bytes.NewReader(make([]byte, size)),
		})
		if err != nil {
			return err
		}
		parts = append(parts, types.CompletedPart{PartNumber: number, ETag: part.ETag})
	}
	_, err = client.CompleteMultipartUpload(ctx, &s3.CompleteMultipartUploadInput{
		Bucket: bucket, Key: key, UploadId: upload.UploadId, MultipartUpload: &types.CompletedMultipartUpload{Parts: parts},
	})
	return err
}
