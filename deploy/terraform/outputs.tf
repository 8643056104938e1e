output "base_url" {
  value = "https://${var.host}/v1"
}

output "image_repository" {
  description = "Push the image here before the first apply of the gateway."
  value       = aws_ecr_repository.image.repository_url
}

output "kubeconfig" {
  value = "aws eks update-kubeconfig --name ${module.cluster.cluster_name} --region ${var.region}"
}

output "admin_key" {
  value     = random_password.ours["ADMIN_KEY"].result
  sensitive = true
}
