# State of Terraform (1.11 or later) or OpenTofu in a pool. The lock is an object made by a conditional put, so two runs
# never change the state at once; no DynamoDB. Keys come from the environment.
terraform {
  required_version = ">= 1.11"
  backend "s3" {
    bucket       = "terraform"
    key          = "home/terraform.tfstate"
    region       = "us-east-1"
    use_lockfile = true
    endpoints    = { s3 = "http://127.0.0.1:9000" }

    # PALM is not AWS: nobody to ask about accounts, regions or machines.
    use_path_style              = true
    skip_credentials_validation = true
    skip_metadata_api_check     = true
    skip_region_validation      = true
    skip_requesting_account_id  = true
  }
}

# Anything; here what needs no provider.
resource "terraform_data" "greeting" {
  input = "kept by the peers of this network"
}

output "greeting" {
  value = terraform_data.greeting.output
}
