data "aws_availability_zones" "here" {
  state = "available"
}

locals {
  zones = slice(data.aws_availability_zones.here.names, 0, 3)
}

module "network" {
  source  = "terraform-aws-modules/vpc/aws"
  version = "5.21.0"

  name = var.name
  cidr = var.cidr
  azs  = local.zones

  private_subnets  = [for index in range(3) : cidrsubnet(var.cidr, 4, index)]
  public_subnets   = [for index in range(3) : cidrsubnet(var.cidr, 8, 240 + index)]
  database_subnets = [for index in range(3) : cidrsubnet(var.cidr, 8, 224 + index)]

  enable_nat_gateway     = true
  one_nat_gateway_per_az = true
  enable_dns_hostnames   = true

  public_subnet_tags  = { "kubernetes.io/role/elb" = "1" }
  private_subnet_tags = { "kubernetes.io/role/internal-elb" = "1" }
}
