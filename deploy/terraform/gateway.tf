resource "kubernetes_namespace_v1" "gateway" {
  metadata {
    name = "ai-gateway"

    labels = {
      "pod-security.kubernetes.io/enforce" = "restricted"
    }
  }
}

resource "random_password" "ours" {
  for_each = toset(["ADMIN_KEY", "LLMGATEWAY_SECRET_KEYS", "LLMGATEWAY_KEY_PEPPER"])

  length  = 64
  special = false
}

resource "kubernetes_secret_v1" "gateway" {
  metadata {
    name      = "llmgateway"
    namespace = kubernetes_namespace_v1.gateway.metadata[0].name
  }

  data = merge(
    { for name, made in random_password.ours : name => made.result },
    {
      MONGO_URL      = local.mongo_url
      REDIS_URL      = local.redis_url
      REDIS_PASSWORD = random_password.redis.result
      MONGO_PASSWORD = random_password.mongodb.result
      MONGO_KEYFILE  = random_bytes.mongodb_keyfile.base64
    },
    var.inference_key == "" ? {} : { INFERENCE_KEY = var.inference_key },
  )
}

locals {
  outside = concat(
    [for address in var.outside : {
      to    = [{ ipBlock = { cidr = address } }]
      ports = [{ port = 443 }]
    }],
    local.has_elasticache ? [{
      to    = [for subnet in module.network.database_subnets_cidr_blocks : { ipBlock = { cidr = subnet } }]
      ports = [{ port = 6379 }]
    }] : [],
    local.has_mongodb ? [] : [{
      to    = [{ ipBlock = { cidr = var.mongo_cidr } }]
      ports = [{ port = 27017 }]
    }],
  )
}

resource "helm_release" "gateway" {
  name      = "llmgateway"
  namespace = kubernetes_namespace_v1.gateway.metadata[0].name
  chart     = "${path.module}/../helm/llmgateway"
  timeout   = 1800 # a rollout waits for streams
  atomic    = true

  values = [yamlencode({
    host    = var.host
    image   = { repository = aws_ecr_repository.image.repository_url, tag = var.image_tag }
    config  = var.config
    secrets = { existing = kubernetes_secret_v1.gateway.metadata[0].name }
    journal = { size = "10Gi", storageClass = kubernetes_storage_class_v1.journal.metadata[0].name }
    redis   = { enabled = !local.has_elasticache }
    mongodb = { enabled = local.has_mongodb, size = "100Gi" }
    ingress = { className = "nginx", clusterIssuer = "letsencrypt" }

    networkPolicy  = { egress = local.outside }
    trustedProxies = [var.cidr]
  })]

  depends_on = [helm_release.ingress, helm_release.certificates]
}
