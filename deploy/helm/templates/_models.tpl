{{/* The parts of a pod that reads the model repository: of Triton, and of the job that builds engines. */}}
{{/* The init containers that copy the repository into the pod, if its source needs a copy. */}}
{{- define "mixer.copied" -}}
{{- $source := include "mixer.repository" . }}
{{- $repository := .Values.modelRepository }}
{{- if eq $source "s3" }}
{{- with $repository.s3 }}
initContainers:
  - name: model-repository
    image: {{ include "mixer.reference" (dict "root" $ "image" .image) | quote }}
    args:
      - copy
      - --checksum
      - "repository:{{ .bucket }}{{ with .prefix }}/{{ trimAll "/" . }}{{ end }}"
      - /models
    env:
      - {name: HOME, value: /tmp}
      - {name: RCLONE_CONFIG, value: /tmp/rclone.conf}
      - {name: RCLONE_CONFIG_REPOSITORY_TYPE, value: s3}
      - {name: RCLONE_CONFIG_REPOSITORY_PROVIDER, value: {{ .provider | quote }}}
      - {name: RCLONE_CONFIG_REPOSITORY_ENV_AUTH, value: "true"}
      {{- with .endpoint }}
      - {name: RCLONE_CONFIG_REPOSITORY_ENDPOINT, value: {{ . | quote }}}
      {{- end }}
      {{- with .region }}
      - {name: RCLONE_CONFIG_REPOSITORY_REGION, value: {{ . | quote }}}
      {{- end }}
    {{- with .credentialsSecret }}
    envFrom:
      - secretRef: {name: {{ . }}}
    {{- end }}
    securityContext: {{- include "mixer.hardened" $ | nindent 6 }}
    resources:
      requests: {cpu: 100m, memory: 128Mi, ephemeral-storage: 16Mi}
      limits: {memory: 512Mi, ephemeral-storage: 64Mi}
    volumeMounts:
      - {name: models, mountPath: /models}
      - {name: tmp, mountPath: /tmp}
{{- end }}
{{- else if eq $source "image" }}
initContainers:
  - name: model-repository
    image: {{ include "mixer.reference" (dict "root" . "image" $repository.image) | quote }}
    command: [cp, -R, "{{ trimSuffix "/" $repository.image.path }}/.", /models/]
    securityContext: {{- include "mixer.hardened" . | nindent 6 }}
    resources:
      requests: {cpu: 100m, memory: 128Mi, ephemeral-storage: 16Mi}
      limits: {memory: 512Mi, ephemeral-storage: 64Mi}
    volumeMounts:
      - {name: models, mountPath: /models}
{{- end }}
{{- end }}

{{- define "mixer.tritonMounts" -}}
{{- $t := .Values.triton }}
{{- $source := include "mixer.repository" . }}
{{- $repository := .Values.modelRepository }}
- {name: tmp, mountPath: /tmp}
- {name: shm, mountPath: /dev/shm}
- name: models
  mountPath: /models
  readOnly: true
  {{- if eq $source "imageVolume" }}
  {{- with $repository.imageVolume.path }}
  subPath: {{ trimAll "/" . }}
  {{- end }}
  {{- end }}
  {{- if eq $source "pvc" }}
  {{- with $repository.pvc.path }}
  subPath: {{ trimAll "/" . }}
  {{- end }}
  {{- end }}
{{- if or $t.engines.size $t.engines.claim }}
- {name: engines, mountPath: /engines}
{{- end }}
{{- end }}

{{- define "mixer.tritonVolumes" -}}
{{- $t := .Values.triton }}
{{- $source := include "mixer.repository" . }}
{{- $repository := .Values.modelRepository }}
# Triton's backends are unpacked and executed in this folder.
- {name: tmp, emptyDir: {sizeLimit: 256Mi}}
# By default a container's /dev/shm has 64 MB. The files that Triton puts there count as the pod's memory.
- {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ $t.sharedMemory }}}}
{{- if eq $source "pvc" }}
- {name: models, persistentVolumeClaim: {claimName: {{ $repository.pvc.claim }}, readOnly: true}}
{{- else if eq $source "imageVolume" }}
- name: models
  image:
    reference: {{ include "mixer.reference" (dict "root" . "image" $repository.imageVolume) | quote }}
    pullPolicy: {{ $repository.imageVolume.pullPolicy }}
{{- else }}
- {name: models, emptyDir: {sizeLimit: {{ (index $repository $source).size }}}}
{{- end }}
{{- if $t.engines.claim }}
- {name: engines, persistentVolumeClaim: {claimName: {{ $t.engines.claim }}}}
{{- else if $t.engines.size }}
- {name: engines, emptyDir: {sizeLimit: {{ $t.engines.size }}}}
{{- end }}
{{- end }}
