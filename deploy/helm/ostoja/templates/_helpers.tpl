{{- /* What a pod of each service gets of the Secret, named as in .env. A test compares this with the settings. */ -}}
{{- define "ostoja.secrets" -}}
gateway:
  required: [ADMIN_API_KEY, SERVICE_API_KEY, ALERTS_INTERNAL_KEY, CONSENT_INTERNAL_KEY, FOLLOWUPS_INTERNAL_KEY, CONSOLE_INTERNAL_KEY, TOKEN_KEYS]
  optional: [ADMIN_API_KEY_PREVIOUS, SERVICE_API_KEY_PREVIOUS, OPERATOR_KEYS, SLACK_SIGNING_SECRET, FORM_KEYS, PING_KEYS, OTEL_EXPORTER_OTLP_HEADERS]
followups:
  required: [TOKEN_KEYS]
  optional: [CHAT_MODEL_KEY, INBOX_URL, OTEL_EXPORTER_OTLP_HEADERS]
consent:
  required: [TOKEN_KEYS, CONSENT_MASTER_KEYS, CONSENT_HASH_KEY, CONSENT_CHECKPOINT_KEYS]
  optional: [OTEL_EXPORTER_OTLP_HEADERS]
alerts:
  required: [ALERTS_SUBJECT_KEYS, WEBHOOK_SECRET]
  optional: [PING_KEYS, SLACK_WEBHOOK_URL, SLACK_BOT_TOKEN, MONDAY_API_TOKEN, SMS_API_TOKEN, SMTP_PASSWORD, HEARTBEAT_URL, OTEL_EXPORTER_OTLP_HEADERS]
console:
  required: [OPERATOR_KEYS]
  optional: [OIDC_CLIENT_SECRET, OTEL_EXPORTER_OTLP_HEADERS]
setup:
  required: [POSTGRES_SUPERUSER_PASSWORD, RABBITMQ_ADMIN_PASSWORD, ALERTS_DB_PASSWORD, ALERTS_OWNER_DB_PASSWORD, CONSENT_DB_PASSWORD, CONSENT_OWNER_DB_PASSWORD, FOLLOWUPS_DB_PASSWORD, FOLLOWUPS_OWNER_DB_PASSWORD, CONSOLE_DB_PASSWORD, CONSOLE_OWNER_DB_PASSWORD, GATEWAY_AMQP_PASSWORD, ALERTS_AMQP_PASSWORD, CONSENT_AMQP_PASSWORD, FOLLOWUPS_AMQP_PASSWORD, CONSOLE_AMQP_PASSWORD]
  optional: [MONDAY_API_TOKEN, SMS_API_TOKEN, OIDC_CLIENT_SECRET]
{{- end }}

{{- define "ostoja.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "ostoja.labels" -}}
app.kubernetes.io/name: ostoja
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "ostoja.secret" -}}
- name: {{ .as | default .key }}
  valueFrom: {secretKeyRef: {name: {{ .root.Values.existingSecret }}, key: {{ .key }}{{ if .optional }}, optional: true{{ end }}}}
{{- end }}

{{- /* The variables from the Secret of one service, or of setup. */ -}}
{{- define "ostoja.secretEnv" -}}
{{- $keys := get (include "ostoja.secrets" . | fromYaml) .component }}
{{- range $index, $key := $keys.required }}
{{- if $index }}{{ "\n" }}{{ end }}
{{- include "ostoja.secret" (dict "root" $.root "key" $key) }}
{{- end }}
{{- range $keys.optional }}
{{ include "ostoja.secret" (dict "root" $.root "key" . "optional" true) }}
{{- end }}
{{- end }}

{{- define "ostoja.amqp" -}}
{{- with .root.Values.rabbitmq -}}
{{ .scheme }}://{{ $.component }}:$({{ upper $.component }}_AMQP_PASSWORD)@{{ $.address | default .address }}/ostoja{{ if not $.address }}{{ .options }}{{ end }}
{{- end }}
{{- end }}

{{- /* name -> content of each file in /app/config */ -}}
{{- define "ostoja.files" -}}
{{- $files := dict }}
{{- range $path, $_ := .Files.Glob "config/**" }}
{{- $_ := set $files (trimPrefix "config/" $path) ($.Files.Get $path) }}
{{- end }}
{{- range $name, $content := .Values.config }}
{{- if kindIs "invalid" $content }}{{ $_ := unset $files $name }}{{ else }}{{ $_ := set $files $name $content }}{{ end }}
{{- end }}
{{- $files | toYaml }}
{{- end }}

{{- define "ostoja.settingsName" }}{{ .name }}-settings{{ end }}

{{- /*
Of the content, so that a pod keeps its files: a process of the old version that restarts during an upgrade
could not read a file that has texts of the new one.
*/ -}}
{{- define "ostoja.filesName" }}{{ .name }}-config-{{ include "ostoja.files" .root | sha256sum | trunc 8 }}{{ end }}

{{- /* The settings and the files, as the services get them and, before them, the setup Job. */ -}}
{{- define "ostoja.configMaps" -}}
{{- $settings := dict }}
{{- range $name, $value := .root.Values.settings }}{{ $_ := set $settings $name (kindIs "string" $value | ternary $value (toJson $value)) }}{{ end }}
{{- $files := dict }}
{{- range $path, $content := include "ostoja.files" .root | fromYaml }}{{ $_ := set $files ($path | replace "/" ".") $content }}{{ end }}
{{- range $name, $data := dict (include "ostoja.settingsName" .) $settings (include "ostoja.filesName" .) $files }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ $name }}
  labels: {{- include "ostoja.labels" $ | nindent 4 }}
  {{- with $.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
data: {{- toYaml $data | nindent 2 }}
{{- end }}
{{- end }}

{{- define "ostoja.volumes" -}}
- name: tmp
  emptyDir: {}
- name: config
  configMap:
    name: {{ include "ostoja.filesName" . }}
    items: # a key may have no slash
    {{- range $name, $_ := include "ostoja.files" .root | fromYaml }}
    - {key: {{ $name | replace "/" "." }}, path: {{ $name }}}
    {{- end }}
{{- with .root.Values.tls.secrets }}
- name: tls
  secret: {secretName: {{ . }}-{{ $.component }}, defaultMode: 0440}
{{- end }}
{{- end }}

{{- define "ostoja.podSecurity" -}}
automountServiceAccountToken: false
enableServiceLinks: false # or ALERTS_PORT and the like of other Services become variables
securityContext: {runAsNonRoot: true, runAsUser: 10001, runAsGroup: 10001, fsGroup: 10001, seccompProfile: {type: RuntimeDefault}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "ostoja.containerSecurity" -}}
securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
{{- end }}
