{{- define "llmgateway.name" -}}
{{- if eq .Release.Name .Chart.Name -}}{{ .Chart.Name }}{{- else -}}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 46 | trimSuffix "-" }}{{- end -}}
{{- end }}

{{- define "llmgateway.selector" -}}
app.kubernetes.io/name: llmgateway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "llmgateway.labels" -}}
{{ include "llmgateway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "llmgateway.image" -}}
{{- $image := .Values.image -}}
{{ $image.repository }}{{ if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .Chart.AppVersion }}{{ end }}
{{- end }}

{{/* One of three ways, and exactly one. */}}
{{- define "llmgateway.secret" -}}
{{- $ways := add (ternary 1 0 (ne .Values.secrets.existing "")) (ternary 1 0 (not (empty .Values.secrets.create))) (ternary 1 0 .Values.secrets.external.enabled) | int -}}
{{- if ne $ways 1 }}{{ fail "secrets: give one of existing, create and external" }}{{ end -}}
{{- .Values.secrets.existing | default (include "llmgateway.name" .) -}}
{{- end }}

{{/* preStop, drain_pause, drain, 30 s for the last records and for closing, and 15 s over. */}}
{{- define "llmgateway.grace" -}}
{{- add (ceil .Values.rollout.preStop) (ceil (.Values.config.drain_pause | default 10)) (ceil (.Values.config.drain | default 600)) 45 -}}
{{- end }}

{{- define "llmgateway.closed" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "llmgateway.nobody" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "llmgateway.dns" -}}
- to:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}
      podSelector: {matchLabels: {k8s-app: kube-dns}}
  ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end }}
