variable "name" {
  description = "Names everything; short, for example llm-prod."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}$", var.name))
    error_message = "Lower-case letters, digits and hyphens, at most 21."
  }
}

variable "region" {
  type    = string
  default = "eu-north-1"
}

variable "zone" {
  description = "The hosted zone in Route53, for example example.org."
  type        = string
}

variable "host" {
  description = "The name that users know, below the zone, for example llm.example.org."
  type        = string
}

variable "cidr" {
  type    = string
  default = "10.20.0.0/16"
}

variable "kubernetes" {
  description = "Version of the cluster; 1.30 at least."
  type        = string
  default     = "1.33"
}

variable "nodes" {
  description = "Machines of the gateway: two processors make two workers, about 2,000 busy streams."
  type = object({
    type = string
    min  = number
    max  = number
  })
  default = {
    type = "m7i.xlarge"
    min  = 3
    max  = 9
  }
}

variable "redis" {
  description = "elasticache, or in-cluster."
  type        = string
  default     = "elasticache"

  validation {
    condition     = contains(["elasticache", "in-cluster"], var.redis)
    error_message = "elasticache or in-cluster."
  }
}

variable "mongo_url" {
  description = "A replica set somewhere (mongodb+srv://...); empty for one in the cluster. Amazon DocumentDB is not MongoDB and not tested."
  type        = string
  default     = ""
  sensitive   = true
}

variable "mongo_cidr" {
  description = "Where mongo_url leads, for the network policy."
  type        = string
  default     = "10.20.0.0/16"
}

variable "outside" {
  description = "Addresses outside the cluster that the gateway may reach on port 443: identity provider, vendors."
  type        = list(string)
  default     = []
}

variable "image_tag" {
  type    = string
  default = "0.1.0"
}

variable "inference_key" {
  description = "Credential towards the model servers."
  type        = string
  default     = ""
  sensitive   = true
}

variable "config" {
  description = "The gateway's file, as in config/gateway.example.yaml."
  type        = any
  default = {
    drain       = 600
    drain_pause = 10
    models      = [{ id = "echo", targets = [{ provider = "echo" }] }]
  }
}
