data "aws_route53_zone" "ours" {
  name = var.zone
}

resource "helm_release" "certificates" {
  name             = "cert-manager"
  namespace        = "cert-manager"
  create_namespace = true
  repository       = "https://charts.jetstack.io"
  chart            = "cert-manager"
  version          = "v1.18.2"

  values = [yamlencode({ crds = { enabled = true } })]

  depends_on = [module.cluster]
}

resource "helm_release" "ingress" {
  name             = "ingress-nginx"
  namespace        = "ingress-nginx"
  create_namespace = true
  repository       = "https://kubernetes.github.io/ingress-nginx"
  chart            = "ingress-nginx"
  version          = "4.13.0"

  values = [yamlencode({
    controller = {
      config = {
        # As long as the longest stream: a reload of the controller must not cut what is open.
        worker-shutdown-timeout = "3900s"
        keep-alive              = "75"
      }
      terminationGracePeriodSeconds = 3960
      service = {
        annotations = {
          "service.beta.kubernetes.io/aws-load-balancer-type"            = "external"
          "service.beta.kubernetes.io/aws-load-balancer-nlb-target-type" = "ip"
          "service.beta.kubernetes.io/aws-load-balancer-scheme"          = "internet-facing"
        }
      }
    }
  })]

  depends_on = [module.cluster]
}

data "kubernetes_service_v1" "ingress" {
  metadata {
    name      = "ingress-nginx-controller"
    namespace = helm_release.ingress.namespace
  }
}

resource "aws_route53_record" "host" {
  zone_id = data.aws_route53_zone.ours.zone_id
  name    = var.host
  type    = "CNAME"
  ttl     = 60
  records = [data.kubernetes_service_v1.ingress.status[0].load_balancer[0].ingress[0].hostname]
}
