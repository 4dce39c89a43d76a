{{- define "crucible.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "crucible.fullname" -}}
{{- $name := include "crucible.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Of what has no namespace: two releases of one name in two namespaces must not meet. */}}
{{- define "crucible.clusterName" -}}
{{- $name := include "crucible.fullname" . -}}
{{- if eq $name .Release.Namespace -}}{{ $name }}{{- else -}}{{ .Release.Namespace }}-{{ $name }}{{- end -}}
{{- end -}}

{{- define "crucible.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "crucible.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "crucible.egressName" -}}
{{ include "crucible.fullname" . }}-egress
{{- end -}}

{{- define "crucible.egressAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "crucible.egressName" .) .Values.egress.serviceAccountName -}}
{{- else -}}
{{- required "egress.serviceAccountName is needed where serviceAccount.create is false" .Values.egress.serviceAccountName -}}
{{- end -}}
{{- end -}}

{{- define "crucible.egressSelector" -}}
{{ include "crucible.selector" . | replace "component: operator" "component: egress" }}
{{- end -}}

{{- define "crucible.egressLabels" -}}
{{ include "crucible.labels" . | replace "component: operator" "component: egress" }}
{{- end -}}

{{- define "crucible.busName" -}}
{{ include "crucible.fullname" . }}-bus
{{- end -}}

{{- define "crucible.busAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "crucible.busName" .) .Values.bus.serviceAccountName -}}
{{- else -}}
{{- required "bus.serviceAccountName is needed where serviceAccount.create is false" .Values.bus.serviceAccountName -}}
{{- end -}}
{{- end -}}

{{- define "crucible.busSelector" -}}
{{ include "crucible.selector" . | replace "component: operator" "component: bus" }}
{{- end -}}

{{- define "crucible.busLabels" -}}
{{ include "crucible.labels" . | replace "component: operator" "component: bus" }}
{{- end -}}

{{/* Where replicas of the broker meet; empty: there is one, which meets nobody. */}}
{{- define "crucible.busBackbone" -}}
{{- $nats := .Values.bus.nats -}}
{{- if and $nats.enabled $nats.url -}}
{{- fail "bus.nats.url is a server of yours, bus.nats.enabled makes one: leave one out" -}}
{{- else if and $nats.enabled (gt (int $nats.copies) 1) -}}
{{- fail (printf "bus.nats.copies: %d servers cannot keep an event each, for bus.nats.enabled makes one: set bus.nats.copies=1, or bus.nats.url to a cluster of yours" (int $nats.copies)) -}}
{{- else if $nats.enabled -}}
tls://{{ include "crucible.natsName" . }}.{{ .Release.Namespace }}.svc:4222
{{- else if $nats.url -}}
{{ $nats.url }}
{{- else if gt (int .Values.bus.replicas) 1 -}}
{{- fail (printf "bus.replicas: %d brokers need a place to meet: set bus.nats.enabled=true, or bus.nats.url" (int .Values.bus.replicas)) -}}
{{- end -}}
{{- end -}}

{{/* The Secret that the broker shows to pods; empty: it makes a certificate itself. */}}
{{- define "crucible.busSecret" -}}
{{- if .Values.bus.secretName -}}
{{ .Values.bus.secretName }}
{{- else if include "crucible.busBackbone" . -}}
{{ include "crucible.busName" . }}-tls
{{- end -}}
{{- end -}}

{{- define "crucible.natsName" -}}
{{ include "crucible.busName" . }}-nats
{{- end -}}

{{- define "crucible.natsImage" -}}
{{- with .Values.bus.nats.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "crucible.natsSelector" -}}
{{ include "crucible.selector" . | replace "component: operator" "component: nats" }}
{{- end -}}

{{- define "crucible.natsLabels" -}}
{{ include "crucible.labels" . | replace "component: operator" "component: nats" }}
{{- end -}}

{{- define "crucible.user" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "crucible.serviceAccount" . }}
{{- end -}}

{{- define "crucible.selector" -}}
app.kubernetes.io/name: {{ include "crucible.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "crucible.labels" -}}
{{ include "crucible.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: crucible
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "crucible.image" -}}
{{- $tag := default .Chart.AppVersion .Values.image.tag -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ $tag }}
{{- end -}}
{{- end -}}

{{/*
"true" where policies are to be made. Without a server Helm knows versions of groups and no kinds; then every version
that the chart supports is taken to have them, as by default it has.
*/}}
{{- define "crucible.policies" -}}
{{- $versions := .Capabilities.APIVersions -}}
{{- $offered := $versions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy" -}}
{{- $unknown := not ($versions.Has "v1/Pod") -}}
{{- if or (eq .Values.admission.policies "always") (and (eq .Values.admission.policies "auto") (or $offered $unknown)) -}}
true
{{- end -}}
{{- end -}}

{{/* What a restricted pod of ours may be; the same for the operator and the test. */}}
{{- define "crucible.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.runAsUser }}
runAsGroup: {{ .Values.runAsUser }}
fsGroup: {{ .Values.runAsUser }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "crucible.containerSecurity" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end -}}
