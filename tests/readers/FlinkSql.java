import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;
import java.util.TreeMap;
import org.apache.flink.table.api.EnvironmentSettings;
import org.apache.flink.table.api.TableEnvironment;
import org.apache.flink.table.api.TableResult;
import org.apache.flink.types.Row;
import org.apache.flink.types.RowKind;
import org.apache.flink.util.CloseableIterator;

/**
 * Executes the statements of a file. After each query it prints the line "==" and the
 * rows that are valid when the bounded topics have ended, in the order of their text.
 */
public class FlinkSql {
  public static void main(String[] arguments) throws Exception {
    TableEnvironment tables = TableEnvironment.create(EnvironmentSettings.inStreamingMode());
    tables.getConfig().set("table.local-time-zone", "UTC");
    tables.getConfig().set("parallelism.default", "1");
    for (String statement : Files.readString(Path.of(arguments[0])).split(";\n")) {
      String text = statement.replaceAll("(?m)^--.*$", "").strip();
      if (text.isEmpty()) {
        continue;
      }
      TableResult result = tables.executeSql(text);
      if (text.startsWith("SELECT")) {
        System.out.println("==");
        rows(result).forEach((line, count) -> System.out.print((line + "\n").repeat(count)));
      }
    }
  }

  private static Map<String, Integer> rows(TableResult result) throws Exception {
    Map<String, Integer> rows = new TreeMap<>();
    try (CloseableIterator<Row> changes = result.collect()) {
      while (changes.hasNext()) {
        Row row = changes.next();
        boolean added =
            row.getKind() == RowKind.INSERT || row.getKind() == RowKind.UPDATE_AFTER;
        StringBuilder line = new StringBuilder();
        for (int column = 0; column < row.getArity(); column++) {
          line.append(column == 0 ? "" : "\t").append(text(row.getField(column)));
        }
        rows.merge(line.toString(), added ? 1 : -1, Integer::sum);
      }
    }
    return rows;
  }

  private static String text(Object value) {
    String text =
        value instanceof Object[] items ? Arrays.deepToString(items) : String.valueOf(value);
    return text.replace("\n", "\\n").replace("\t", "\\t");
  }
}
