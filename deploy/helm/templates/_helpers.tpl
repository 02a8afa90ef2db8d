{{- define "mixer.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "mixer.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "mixer.labels" -}}
{{ include "mixer.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "mixer.metadata" -}}
name: {{ include "mixer.name" .root }}-{{ .component }}
namespace: {{ .root.Release.Namespace }}
labels: {{- include "mixer.labels" . | nindent 2 }}
{{- end }}

{{/* The reference of an image. A repository without a slash lies below `images`. With a digest, the reference names the
content; requireDigests refuses an image without a digest. In: root, image. */}}
{{- define "mixer.reference" -}}
{{- if and .root.Values.requireDigests (not .image.digest) }}
{{- fail (printf "requireDigests: the image %s needs its digest (sha256:...), which `docker push` prints" .image.repository) }}
{{- end }}
{{- $repository := .image.repository }}
{{- if not (contains "/" $repository) }}
{{- $where := required "images: say where the images of this project lie, such as registry.example.org/mixer-serving; they have no default, since whoever owned that name would run code in your cluster" .root.Values.images }}
{{- $repository = printf "%s/%s" (trimSuffix "/" $where) $repository }}
{{- end }}
{{- $repository }}:{{ .image.tag | default .root.Chart.AppVersion }}{{ with .image.digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "mixer.image" -}}
image: {{ include "mixer.reference" . | quote }}
imagePullPolicy: {{ .image.pullPolicy }}
{{- end }}

{{- define "mixer.hardened" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The part of a pod about its nodes and its user. In: root, component, its values, the user's number. */}}
{{- define "mixer.pod" -}}
serviceAccountName: {{ include "mixer.name" .root }}-{{ .component }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ .user }}
  runAsGroup: {{ .user }}
  fsGroup: {{ .user }}
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
topologySpreadConstraints:
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "mixer.selector" $ | nindent 8 }}
    # Pods of an earlier release do not count while a new one rolls out.
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- range $name := list "nodeSelector" "tolerations" "affinity" }}
{{- with index $.values $name }}
{{ $name }}: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* The one source of the model repository: pvc, s3, image or imageVolume. */}}
{{- define "mixer.repository" -}}
{{- $given := list }}
{{- if .Values.modelRepository.pvc.claim }}{{ $given = append $given "pvc" }}{{ end }}
{{- if .Values.modelRepository.s3.bucket }}{{ $given = append $given "s3" }}{{ end }}
{{- if .Values.modelRepository.image.repository }}{{ $given = append $given "image" }}{{ end }}
{{- if .Values.modelRepository.imageVolume.repository }}{{ $given = append $given "imageVolume" }}{{ end }}
{{- if ne (len $given) 1 }}
{{- fail (printf "modelRepository: exactly one of pvc.claim, s3.bucket, image.repository and imageVolume.repository is to be set; set are: %s" (join ", " $given | default "none")) }}
{{- end }}
{{- first $given }}
{{- end }}

{{- define "mixer.scaled" -}}
{{- if not (has .autoscaling.kind (list "none" "hpa" "keda")) }}
{{- fail (printf "autoscaling.kind is %q, expected none, hpa or keda" .autoscaling.kind) }}
{{- end }}
{{- if eq .autoscaling.kind "none" }}replicas: {{ .replicas }}{{ end }}
{{- end }}

{{/* The identity of the models: their digest, or a digest of the settings of their source. */}}
{{- define "mixer.models" -}}
{{- .Values.modelRepository.digest | default (toJson .Values.modelRepository | sha256sum) }}
{{- end }}
