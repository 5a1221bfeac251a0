# One machine that runs all of docker/compose.yaml behind a proxy with TLS, with an address that stays,
# a bucket for its backups, and an account that may write there and nothing else.
#
#   terraform init && terraform apply -var project=… -var domain=flights.example
#
# README.md beside this file walks through it.

terraform {
  required_version = ">= 1.6"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 6.0"
    }
  }
}

variable "project" {
  description = "The project of Google Cloud that pays for it."
  type        = string
}

variable "domain" {
  description = "The name that browsers reach the pages by; its A record is the address below."
  type        = string
  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9.-]*[a-z0-9])?\\.[a-z]{2,}$", var.domain))
    error_message = "A name such as flights.example, without https:// and in lower case."
  }
}

variable "zone" {
  description = "Where the machine stands."
  type        = string
  default     = "europe-west3-a"
}

variable "machine_type" {
  description = "Two cores and 8 GB carry all profiles; training more than some years wants more."
  type        = string
  default     = "e2-standard-2"
}

variable "disk_gb" {
  description = "Size of the disk in GB."
  type        = number
  default     = 80
}

variable "repository" {
  description = "Where the machine gets docker/ from."
  type        = string
}

variable "release" {
  description = "The tag of the repository that runs."
  type        = string
}

variable "image" {
  description = "The image that runs; without one the machine makes it, which takes an hour or two."
  type        = string
  default     = ""
}

locals {
  region = join("-", slice(split("-", var.zone), 0, 2))
}

provider "google" {
  project = var.project
  region  = local.region
  zone    = var.zone
}

# ------------------------------------------------------------------------------------ what it may do
resource "google_service_account" "tarmac" {
  account_id   = "tarmac-machine"
  display_name = "The machine that runs Tarmac"
}

# It adds backups and reads them; it cannot delete any, nor see another bucket.
resource "google_storage_bucket_iam_member" "adds" {
  bucket = google_storage_bucket.backups.name
  role   = "roles/storage.objectCreator"
  member = google_service_account.tarmac.member
}

resource "google_storage_bucket_iam_member" "reads" {
  bucket = google_storage_bucket.backups.name
  role   = "roles/storage.objectViewer"
  member = google_service_account.tarmac.member
}

resource "google_project_iam_member" "logs" {
  project = var.project
  role    = "roles/logging.logWriter"
  member  = google_service_account.tarmac.member
}

# ----------------------------------------------------------------------------------------- backups
resource "google_storage_bucket" "backups" {
  name                        = "${var.project}-tarmac-backups"
  location                    = local.region
  storage_class               = "NEARLINE"
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"

  lifecycle_rule {
    condition {
      age = 30
    }
    action {
      type = "Delete"
    }
  }
}

# ----------------------------------------------------------------------------------------- network
resource "google_compute_network" "tarmac" {
  name                    = "tarmac"
  auto_create_subnetworks = true
}

resource "google_compute_address" "tarmac" {
  name = "tarmac"
}

resource "google_compute_firewall" "web" {
  name          = "tarmac-web"
  network       = google_compute_network.tarmac.name
  source_ranges = ["0.0.0.0/0"]
  target_tags   = ["tarmac"]

  allow {
    protocol = "tcp"
    ports    = ["80", "443"]
  }
  allow {
    protocol = "udp"
    ports    = ["443"]
  }
}

# A shell only by way of Google's proxy, which asks who it is: gcloud compute ssh --tunnel-through-iap
resource "google_compute_firewall" "shell" {
  name          = "tarmac-shell"
  network       = google_compute_network.tarmac.name
  source_ranges = ["35.235.240.0/20"]
  target_tags   = ["tarmac"]

  allow {
    protocol = "tcp"
    ports    = ["22"]
  }
}

# ----------------------------------------------------------------------------------------- machine
data "google_compute_image" "ubuntu" {
  family  = "ubuntu-2404-lts-amd64"
  project = "ubuntu-os-cloud"
}

resource "google_compute_instance" "tarmac" {
  name         = "tarmac"
  machine_type = var.machine_type
  tags         = ["tarmac"]

  boot_disk {
    initialize_params {
      image = data.google_compute_image.ubuntu.self_link
      size  = var.disk_gb
      type  = "pd-balanced"
    }
  }

  network_interface {
    network = google_compute_network.tarmac.id
    access_config {
      nat_ip = google_compute_address.tarmac.address
    }
  }

  service_account {
    email  = google_service_account.tarmac.email
    scopes = ["cloud-platform"]
  }

  shielded_instance_config {
    enable_secure_boot = true
  }

  metadata = {
    enable-oslogin         = "TRUE"
    block-project-ssh-keys = "TRUE"
    user-data = templatefile("${path.module}/cloud-init.yaml", {
      domain     = var.domain
      bucket     = google_storage_bucket.backups.name
      repository = var.repository
      release    = var.release
      # one that is made on the machine has the name of what it is made of
      image = var.image != "" ? var.image : "tarmac:${var.release}"
    })
  }

  # a newer Ubuntu, or another cloud-init, is no reason to make the machine anew
  lifecycle {
    ignore_changes = [boot_disk[0].initialize_params[0].image, metadata["user-data"]]
  }
}

output "address" {
  description = "What the A record of the domain must be."
  value       = google_compute_address.tarmac.address
}

output "bucket" {
  description = "Where the backups are."
  value       = google_storage_bucket.backups.name
}
