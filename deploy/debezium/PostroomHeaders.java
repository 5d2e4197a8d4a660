package io.postroom.connect;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.time.OffsetDateTime;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.Map;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.connect.connector.ConnectRecord;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.errors.DataException;
import org.apache.kafka.connect.header.ConnectHeaders;
import org.apache.kafka.connect.header.Header;
import org.apache.kafka.connect.transforms.Transformation;

/**
 * Gives a record the headers that Postroom's relay would give it. Runs after Debezium's EventRouter, which leaves id,
 * ce_type, ce_time and, as JSON, postroom_headers; what has no postroom_headers, such as a heartbeat, passes as it is.
 *
 * JSON that is an object holds the application's headers, to which those of the CloudEvents envelope are added. An
 * array of pairs is complete: dead letters and copies, whose bytes must not change.
 */
public class PostroomHeaders<R extends ConnectRecord<R>> implements Transformation<R> {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final DateTimeFormatter WHOLE = DateTimeFormatter.ofPattern("uuuu-MM-dd'T'HH:mm:ss'Z'");
    private static final DateTimeFormatter MICROS = DateTimeFormatter.ofPattern("uuuu-MM-dd'T'HH:mm:ss.SSSSSS'Z'");

    @Override
    public R apply(R record) {
        Header stored = record.headers().lastWithName("postroom_headers");
        if (stored == null) {
            return record;
        }
        JsonNode json = parsed(String.valueOf(stored.value()));
        ConnectHeaders made = new ConnectHeaders();
        if (json.isArray()) {
            for (JsonNode pair : json) {
                add(made, pair.path(0).asText(), bytes(pair.path(1)));
            }
        } else {
            envelope(record, json, made);
            json.fieldNames().forEachRemaining(name -> add(made, name, json.path(name).asText()));
        }
        return record.newRecord(record.topic(), record.kafkaPartition(), record.keySchema(), record.key(),
            record.valueSchema(), record.value(), record.timestamp(), made);
    }

    private void envelope(R record, JsonNode json, ConnectHeaders made) {
        String id = text(record, "id");
        add(made, "ce_specversion", "1.0");
        add(made, "ce_id", id);
        add(made, "ce_type", text(record, "ce_type"));
        add(made, "ce_time", time(text(record, "ce_time")));
        String subject = subject(record.key());
        if (subject != null && !json.has("ce_subject")) {
            add(made, "ce_subject", subject);
        }
        if (json.path("correlation_id").asText().isEmpty()) {
            add(made, "correlation_id", id);
        }
    }

    private String text(R record, String name) {
        Header header = record.headers().lastWithName(name);
        if (header == null || header.value() == null) {
            throw new DataException("The record has no header " + name + "; see the connector's transforms.");
        }
        return header.value().toString();
    }

    private static JsonNode parsed(String text) {
        try {
            JsonNode json = JSON.readTree(text);
            if (json.isArray() || json.isObject()) {
                return json;
            }
        } catch (JsonProcessingException error) {
            throw new DataException("The stored headers are no JSON.", error);
        }
        throw new DataException("The stored headers must be a JSON object of texts, or an array of pairs.");
    }

    private static byte[] bytes(JsonNode value) {
        try {
            return value.isObject() ? value.path("base64").binaryValue() : utf8(value.asText());
        } catch (java.io.IOException error) {
            throw new DataException("A stored header is no base64.", error);
        }
    }

    /** The key, where it is a text that can be printed; else null. */
    private static String subject(Object key) {
        byte[] bytes = key instanceof ByteBuffer buffer ? array(buffer) : key instanceof byte[] array ? array : null;
        if (bytes == null || bytes.length == 0) {
            return null;
        }
        try {
            String text = StandardCharsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString();
            return text.codePoints().allMatch(PostroomHeaders::isPrintable) ? text : null;
        } catch (CharacterCodingException error) {
            return null;
        }
    }

    private static byte[] array(ByteBuffer buffer) {
        byte[] bytes = new byte[buffer.remaining()];
        buffer.duplicate().get(bytes);
        return bytes;
    }

    private static boolean isPrintable(int point) {
        return switch (Character.getType(point)) {
            case Character.CONTROL, Character.FORMAT, Character.SURROGATE, Character.PRIVATE_USE, Character.UNASSIGNED,
                Character.LINE_SEPARATOR, Character.PARAGRAPH_SEPARATOR -> false;
            case Character.SPACE_SEPARATOR -> point == ' ';
            default -> true;
        };
    }

    /** As the relay writes it: in UTC, with six digits of a second or none. */
    private static String time(String text) {
        OffsetDateTime moment = OffsetDateTime.parse(text).withOffsetSameInstant(ZoneOffset.UTC);
        return moment.format(moment.getNano() == 0 ? WHOLE : MICROS);
    }

    private static void add(ConnectHeaders headers, String name, String value) {
        add(headers, name, utf8(value));
    }

    private static byte[] utf8(String text) {
        return text.getBytes(StandardCharsets.UTF_8);
    }

    private static void add(ConnectHeaders headers, String name, byte[] value) {
        headers.add(name, value, Schema.BYTES_SCHEMA);
    }

    @Override
    public ConfigDef config() {
        return new ConfigDef();
    }

    @Override
    public void configure(Map<String, ?> settings) {
    }

    @Override
    public void close() {
    }
}
