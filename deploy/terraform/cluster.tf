module "cluster" {
  source  = "terraform-aws-modules/eks/aws"
  version = "20.37.1"

  cluster_name    = var.name
  cluster_version = var.kubernetes

  vpc_id     = module.network.vpc_id
  subnet_ids = module.network.private_subnets

  cluster_endpoint_public_access           = true
  enable_cluster_creator_admin_permissions = true
  cluster_enabled_log_types                = ["api", "audit", "authenticator"]

  cluster_addons = {
    coredns    = {}
    kube-proxy = {}
    # Without this the network policies of the chart are words.
    vpc-cni = {
      configuration_values = jsonencode({ enableNetworkPolicy = "true" })
    }
    aws-ebs-csi-driver = {
      service_account_role_arn = module.volumes.iam_role_arn
    }
    metrics-server = {}
  }

  eks_managed_node_groups = {
    gateway = {
      instance_types = [var.nodes.type]
      capacity_type  = "ON_DEMAND" # a machine that is taken away in two minutes would cut streams
      min_size       = var.nodes.min
      max_size       = var.nodes.max
      desired_size   = var.nodes.min
    }
  }
}

module "volumes" {
  source  = "terraform-aws-modules/iam/aws//modules/iam-role-for-service-accounts-eks"
  version = "5.58.0"

  role_name             = "${var.name}-ebs"
  attach_ebs_csi_policy = true

  oidc_providers = {
    cluster = {
      provider_arn               = module.cluster.oidc_provider_arn
      namespace_service_accounts = ["kube-system:ebs-csi-controller-sa"]
    }
  }
}

# The journal's disk: encrypted, kept when the claim goes, and made where the pod is.
resource "kubernetes_storage_class_v1" "journal" {
  metadata {
    name = "llmgateway-journal"
  }

  storage_provisioner    = "ebs.csi.aws.com"
  reclaim_policy         = "Retain"
  volume_binding_mode    = "WaitForFirstConsumer"
  allow_volume_expansion = true

  parameters = {
    type      = "gp3"
    encrypted = "true"
  }
}
