{{- define "fhir-server.labels" -}}
{{ include "fhir-server.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "fhir-server.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "fhir-server.image" -}}
{{- $repository := required "image.repository: where the image was pushed to" .Values.image.repository -}}
{{- if .Values.image.digest -}}
{{ $repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ $repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* What the server and the Job that makes the store have in common: image, settings, rights. */}}
{{- define "fhir-server.container" -}}
image: {{ include "fhir-server.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
env:
  - name: FHIR_SERVER_ORIGIN
    value: "https://{{ required "host: the name at which callers reach the server" .Values.host }}"
  - name: FHIR_SERVER_DRAIN_SECONDS
    value: {{ .Values.drainSeconds | quote }}
  - name: FORWARDED_ALLOW_IPS
    value: {{ required "proxyAddresses: where the ingress controller's requests come from" (join "," .Values.proxyAddresses) | quote }}
  {{- range $name, $value := .Values.settings }}
  - name: FHIR_SERVER_{{ $name }}
    value: {{ $value | quote }}
  {{- end }}
  - name: FHIR_SERVER_STORE_FILE
    value: /run/secrets/fhir-server/store
  - name: FHIR_SERVER_SECRET_KEY_FILE
    value: /run/secrets/fhir-server/secret-key
  - name: FHIR_SERVER_METRICS_TOKEN_FILE
    value: /run/secrets/fhir-server/metrics-token
  - name: FHIR_SERVER_METRICS_ADDRESS
    value: "0.0.0.0:{{ .Values.metricsPort }}"
  {{- if .Values.secret.formerKey }}
  - name: FHIR_SERVER_FORMER_SECRET_KEY_FILE
    value: /run/secrets/fhir-server/former-secret-key
  {{- end }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
resources:
  {{- toYaml .Values.resources | nindent 2 }}
volumeMounts:
  - name: secret
    mountPath: /run/secrets/fhir-server
    readOnly: true
  - name: temporary
    mountPath: /tmp
{{- end }}

{{- define "fhir-server.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile:
    type: RuntimeDefault
volumes:
  - name: secret
    secret:
      secretName: {{ required "secret.name: a Secret with the keys store, secret-key and metrics-token" .Values.secret.name | quote }}
      defaultMode: 0440
  - name: temporary
    emptyDir:
      sizeLimit: 512Mi
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
