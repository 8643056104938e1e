locals {
  has_elasticache = var.redis == "elasticache"
  has_mongodb     = var.mongo_url == "" # in the cluster

  redis_url = local.has_elasticache ? (
    "rediss://:${random_password.redis.result}@${aws_elasticache_replication_group.redis[0].primary_endpoint_address}:6379/0"
  ) : "redis://:${random_password.redis.result}@redis:6379/0"

  mongo_members = join(",", [for index in range(3) : "mongodb-${index}.mongodb:27017"])
  mongo_url = local.has_mongodb ? (
    "mongodb://gateway:${random_password.mongodb.result}@${local.mongo_members}/gateway?replicaSet=rs0&authSource=admin"
  ) : var.mongo_url
}

resource "random_password" "redis" {
  length  = 48
  special = false
}

resource "random_password" "mongodb" {
  length  = 48
  special = false
}

resource "random_bytes" "mongodb_keyfile" {
  length = 512
}

resource "aws_security_group" "redis" {
  count = local.has_elasticache ? 1 : 0

  name        = "${var.name}-redis"
  description = "The cluster's nodes reach Redis"
  vpc_id      = module.network.vpc_id

  ingress {
    description     = "Redis, from the nodes"
    from_port       = 6379
    to_port         = 6379
    protocol        = "tcp"
    security_groups = [module.cluster.node_security_group_id]
  }
}

resource "aws_elasticache_subnet_group" "redis" {
  count = local.has_elasticache ? 1 : 0

  name       = var.name
  subnet_ids = module.network.database_subnets
}

resource "aws_elasticache_parameter_group" "redis" {
  count = local.has_elasticache ? 1 : 0

  name   = "${var.name}-valkey8"
  family = "valkey8"

  # A counter that is dropped for want of room would forgive its limit.
  parameter {
    name  = "maxmemory-policy"
    value = "noeviction"
  }
}

resource "aws_elasticache_replication_group" "redis" {
  count = local.has_elasticache ? 1 : 0

  replication_group_id = var.name
  description          = "Key cache, limits and sessions of llmgateway; rebuilt from MongoDB when it is lost"

  engine               = "valkey"
  engine_version       = "8.0"
  parameter_group_name = aws_elasticache_parameter_group.redis[0].name
  node_type            = "cache.t4g.medium"
  num_cache_clusters   = 2

  automatic_failover_enabled = true
  multi_az_enabled           = true
  at_rest_encryption_enabled = true
  transit_encryption_enabled = true
  auth_token                 = random_password.redis.result
  subnet_group_name          = aws_elasticache_subnet_group.redis[0].name
  security_group_ids         = [aws_security_group.redis[0].id]
  snapshot_retention_limit   = 0
}
